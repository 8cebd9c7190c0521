"""Derivatives against differences, each as a function (probe, atoms, rng) → violation."""

import copy
from collections.abc import Callable, Iterable

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.model.derivatives import evaluate
from mmace_sim.testing.prediction import Violation, worst
from mmace_sim.testing.probe import FIVE_POINTS, ModelProbe, Probe, difference, with_magmoms
from mmace_sim.testing.structures import random_rotation
from mmace_sim.testing.symmetries import zero_some_moments

_ANGLES = 64
"""Angles of a full rotation; harmonics up to half as many are resolved."""


def forces(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare −F·d with dE/dt along a random displacement d, also in training mode."""
    shift = _unit(rng.normal(size=(len(atoms), 3)))

    def displaced(t: float) -> Atoms:
        new = atoms.copy()
        new.set_positions(atoms.get_positions() + t * shift)
        return new

    return _compare(probe, atoms, "forces", -shift, _slope(probe, displaced))


def stress(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare σ:ε with (1/V) dE/dt along a random strain ε, also in training mode."""
    strain = rng.normal(size=(3, 3))
    strain = _unit(strain + strain.T)

    def strained(t: float) -> Atoms:
        new = atoms.copy()
        new.set_cell(atoms.cell.array @ (np.eye(3) + t * strain), scale_atoms=True)
        return new

    return _compare(probe, atoms, "stress", strain, _slope(probe, strained) / atoms.get_volume())


def magforces(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare −H·d with dE/dt along a random change d of the moments, also in training mode."""
    change = _unit(rng.normal(size=(len(atoms), 3)))
    slope = _slope(probe, lambda t: with_magmoms(atoms, get_magmoms(atoms) + t * change))
    return _compare(probe, atoms, "magforces", -change, slope)


def smooth_through_zero(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare second derivatives by moments with differences of magforces where one moment, or all, are zero.

    A potential that uses |m| fails: its second derivatives are not finite there, or differ from what the
    differences say.
    """
    violations = []
    shortest = min(probe.max_moment(number) for number in atoms.numbers.tolist())
    step = probe.step * min(
        shortest, 1.0
    )  # energies of elements with small moments change as fast as these are small
    for n_zero in (1, len(atoms)):
        start = zero_some_moments(atoms, n_zero)
        magmoms = get_magmoms(start)
        change = np.zeros_like(magmoms)
        change[:n_zero] = rng.normal(size=(n_zero, 3))
        change = _unit(change)
        path = [with_magmoms(start, magmoms + t * step * change) for t in FIVE_POINTS]
        predictions = probe.predict_batch(path)
        slopes = -difference([prediction.magforces for prediction in predictions], step)
        error = np.abs(probe.curvature(start, change) - slopes).max()
        violations.append(predictions[0].error("magforces", error, least_scale=float(np.abs(slopes).max())))
    return worst(*violations)


def smooth_rotation(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Turn one moment by 360° and compare E(θ) and dE/dθ with the Fourier series through the energies.

    The series of a smooth function converges exponentially. A jump or a kink anywhere leaves an error at
    the angles between those that the series was made from, and dE/dθ = −H·dm/dθ that does not belong to
    the energy differs from the derivative of the series.
    """
    angles = 2.0 * np.pi * np.arange(_ANGLES) / _ANGLES
    frame, magmoms = random_rotation(rng), get_magmoms(atoms)
    turned = int(np.argmax(np.linalg.norm(magmoms, axis=1)))
    length = np.linalg.norm(magmoms[turned])
    moments = np.outer(np.cos(angles), frame[0]) + np.outer(np.sin(angles), frame[1])
    tangents = np.outer(np.cos(angles), frame[1]) - np.outer(np.sin(angles), frame[0])

    def at(moment: np.ndarray) -> Atoms:
        new = magmoms.copy()
        new[turned] = length * moment
        return with_magmoms(atoms, new)

    predictions = probe.predict_batch([at(moment) for moment in moments])
    energies = np.array([prediction.energy for prediction in predictions])
    if not np.isfinite(energies).all():
        return Violation(np.inf, np.inf)
    between = np.abs(_shifted_series(energies[::2]) - energies[1::2]).max()
    violations = [predictions[0].error("energy", between)]
    if "magforces" in probe.provides:
        slopes = -length * np.array(
            [p.given("magforces")[turned] @ t for p, t in zip(predictions, tangents, strict=True)]
        )
        error = np.abs(_derivative_of_series(energies) - slopes).max() / max(length, 1e-12)
        violations.append(predictions[0].error("magforces", error))
    return worst(*violations)


def _sum_of_squares(tensors: Iterable[Tensor]) -> Tensor:
    return sum((tensor.square().sum() for tensor in tensors), start=torch.zeros((), dtype=torch.float64))


def training_gradient(probe: ModelProbe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare the gradient by the weights of a loss of all derivatives with its finite difference."""
    model = copy.deepcopy(probe.model).double().train()
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.requires_grad_()
    graph = ModelProbe(model).graph([atoms])

    def loss() -> Tensor:
        output = evaluate(model, graph, training=True)
        return _sum_of_squares(output[name] for name in ("forces", "magforces", "stress"))

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    norm = float(torch.sqrt(_sum_of_squares(gradients)))
    noise = [torch.as_tensor(rng.normal(size=tuple(p.shape))).to(p) for p in parameters]
    noise_norm = float(torch.sqrt(_sum_of_squares(noise)))
    direction = [g / (norm or 1.0) + n / noise_norm for g, n in zip(gradients, noise, strict=True)]
    step, values, position = 1e-4, [], 0.0
    for t in FIVE_POINTS:
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += (t - position) * step * d
        position = t
        values.append(float(loss().detach()))
    expected = float(difference(values, step))
    slope = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    return Violation(abs(slope - expected) / max(norm, abs(expected), 1e-12))


def _compare(probe: Probe, atoms: Atoms, name: str, direction: np.ndarray, slope: float) -> Violation:
    """Compare the component of a derivative along a direction with a slope, in each mode of the potential."""
    violations = []
    for training in probe.modes:
        prediction = probe.predict(atoms, training=training)
        component = float(np.sum(getattr(prediction, name) * direction))
        violations.append(prediction.error(name, slope - component))
    return worst(*violations)


def _unit(array: np.ndarray) -> np.ndarray:
    return array / np.linalg.norm(array)


def _slope(probe: Probe, path: Callable[[float], Atoms]) -> float:
    """dE/dt at t = 0."""
    return float(difference(probe.energies([path(t * probe.step) for t in FIVE_POINTS]), probe.step))


def _shifted_series(values: np.ndarray) -> np.ndarray:
    """Values half-way between equidistant points of a period, by the Fourier series through these."""
    n = len(values)
    orders = np.arange(n // 2 + 1)
    phases = np.exp(1j * np.pi * orders / n)
    phases[-1] = 0.0  # the highest harmonic is seen at its zeros
    return np.fft.irfft(np.fft.rfft(values) * phases, n)


def _derivative_of_series(values: np.ndarray) -> np.ndarray:
    """Derivative by the angle at equidistant points of a period."""
    n = len(values)
    orders = np.arange(n // 2 + 1) * 1j
    orders[-1] = 0.0
    return np.fft.irfft(np.fft.rfft(values) * orders, n)

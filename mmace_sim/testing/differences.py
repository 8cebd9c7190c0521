"""Derivatives against finite differences, each as a function (probe, atoms, rng) → relative violation."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.model.derivatives import evaluate
from mmace_sim.testing.probe import Probe
from mmace_sim.testing.symmetries import zero_some_moments

_STEP = 1e-3
"""Step of the five-point differences in Å, μB or strain."""


def forces_and_stress(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare −F·d and V σ:ε with dE/dt along a random displacement d and strain ε, also in training mode."""
    shift = _unit(rng.normal(size=(len(atoms), 3)))
    strain = rng.normal(size=(3, 3))
    strain = _unit(strain + strain.T)

    def displaced(t: float) -> Atoms:
        new = atoms.copy()
        new.set_positions(atoms.get_positions() + t * shift)
        return new

    def strained(t: float) -> Atoms:
        new = atoms.copy()
        new.set_cell(atoms.cell.array @ (np.eye(3) + t * strain), scale_atoms=True)
        return new

    by_shift, by_strain = _slope(probe, displaced), _slope(probe, strained)
    worst = 0.0
    for training in (False, True):
        prediction = probe.predict(atoms, training=training)
        scales, volume = prediction.scales, prediction.volume
        worst = max(
            worst,
            abs(by_shift + float(np.sum(prediction.forces * shift))) / scales["forces"],
            abs(by_strain / volume - float(np.sum(prediction.stress * strain))) / scales["stress"],
        )
    return worst


def magforces(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare −H·d with dE/dt along a random change d of the moments, also in training mode."""
    change = _unit(rng.normal(size=(len(atoms), 3)))
    slope = _slope(probe, lambda t: _with_magmoms(atoms, get_magmoms(atoms) + t * change))
    worst = 0.0
    for training in (False, True):
        prediction = probe.predict(atoms, training=training)
        error = abs(slope + float(np.sum(prediction.magforces * change)))
        worst = max(worst, error / prediction.scales["magforces"])
    return worst


def smooth_through_zero(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare second derivatives by moments with differences of magforces where one moment, or all, are zero.

    A model that uses |m| fails: its second derivatives are not finite there, or differ from what the
    differences say.
    """
    worst = 0.0
    for n_zero in (1, len(atoms)):
        start = zero_some_moments(atoms, n_zero)
        magmoms = get_magmoms(start)
        change = np.zeros_like(magmoms)
        change[:n_zero] = rng.normal(size=(n_zero, 3))
        change = _unit(change)
        predictions = probe.predict_batch(
            [_with_magmoms(start, magmoms + t * change) for t in _STEP * np.array([-2.0, -1.0, 1.0, 2.0])]
        )
        fields = np.stack([prediction.magforces for prediction in predictions])
        differences = -np.tensordot([1.0, -8.0, 8.0, -1.0], fields, axes=1) / (12.0 * _STEP)
        error = np.abs(_curvature(probe, start, change) - differences).max()
        scale = max(predictions[0].scales["magforces"], np.abs(differences).max())
        worst = max(worst, float(error) / scale) if np.isfinite(error) else np.inf
    return worst


def training_gradient(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare the gradient by the weights of a loss of all derivatives with its finite difference."""
    model = copy.deepcopy(probe.model).train()
    parameters = list(model.parameters())
    if not parameters:
        return 0.0
    for parameter in parameters:
        parameter.requires_grad_(requires_grad=True)
    graph = probe.graph([atoms])

    def loss() -> Tensor:
        output = evaluate(model, graph, training=True)
        return sum(output[name].square().sum() for name in ("forces", "magforces", "stress"))

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    norm = float(torch.sqrt(sum(g.square().sum() for g in gradients)))
    noise = [torch.as_tensor(rng.normal(size=tuple(p.shape))).to(p) for p in parameters]
    noise_norm = float(torch.sqrt(sum(n.square().sum() for n in noise)))
    direction = [g / (norm or 1.0) + n / noise_norm for g, n in zip(gradients, noise, strict=True)]
    step, values, position = 1e-4, [], 0.0
    for t in (-2.0, -1.0, 1.0, 2.0):
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += (t - position) * step * d
        position = t
        values.append(float(loss().detach()))
    difference = float(np.dot([1.0, -8.0, 8.0, -1.0], values)) / (12.0 * step)
    slope = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    return abs(slope - difference) / max(norm, abs(difference), 1e-12)


def _unit(array: np.ndarray) -> np.ndarray:
    return array / np.linalg.norm(array)


def _with_magmoms(atoms: Atoms, magmoms: np.ndarray) -> Atoms:
    new = atoms.copy()
    set_magmoms(new, magmoms)
    return new


def _slope(probe: Probe, path: Callable[[float], Atoms]) -> float:
    """dE/dt at t = 0 to fourth order."""
    energies = probe.energies([path(t * _STEP) for t in (-2.0, -1.0, 1.0, 2.0)])
    return float(np.dot([1.0, -8.0, 8.0, -1.0], energies)) / (12.0 * _STEP)


def _curvature(probe: Probe, atoms: Atoms, change: np.ndarray) -> np.ndarray:
    """Product of the second derivatives ∂²E/∂m∂m with a change of the moments, by differentiating twice."""
    graph = probe.graph([atoms])
    graph.magmoms = graph.magmoms.detach().requires_grad_(requires_grad=True)
    energy = probe.model(graph)["energy"].sum()
    (gradient,) = torch.autograd.grad(energy, graph.magmoms, create_graph=True)
    direction = torch.as_tensor(change, dtype=gradient.dtype, device=gradient.device)
    (product,) = torch.autograd.grad((gradient * direction).sum(), graph.magmoms)
    return product.detach().double().cpu().numpy()

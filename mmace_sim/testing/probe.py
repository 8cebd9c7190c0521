"""Evaluation of a potential for the identities: structures in, arrays and the scale of their errors out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast, override

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from torch import nn

from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.batch import MagneticGraph, graph_from_atoms
from mmace_sim.model.derivatives import evaluate
from mmace_sim.testing.prediction import Prediction

FIVE_POINTS: tuple[float, ...] = (-2.0, -1.0, 1.0, 2.0)
"""Where a function is evaluated for its derivative at zero, in steps."""


class Probe(ABC):
    """A potential together with what the identities need to know about it.

    Attributes:
        name: What to call it.
        elements: Atomic numbers that it was made for.
        r_max: Cutoff radius in Å; None if it is not known.
        spin_orbit: Whether directions of moments couple to space; None if that is not known.
        provides: What it has, of "forces", "stress", "magforces", "batch" (several structures at once), "weights"
            (derivatives by them), "r_max" and "moments" (its energy depends on them).
        modes: Values of `training` in which derivatives are compared.
        single_precision: Whether it computes in float32.
    """

    name: str
    elements: list[int]
    r_max: float | None
    spin_orbit: bool | None
    provides: frozenset[str]
    modes: tuple[bool, ...] = (False,)
    single_precision: bool = False

    def __init__(self) -> None:
        self._isolated: dict[int, float] = {}

    @property
    def step(self) -> float:
        """Step of five-point differences in Å, μB or strain: rounding and truncation are alike there."""
        return 0.02 if self.single_precision else 1e-3

    @abstractmethod
    def max_moment(self, atomic_number: int) -> float:
        """Largest moment that the potential was made for, in μB; 3 if it does not say."""

    @abstractmethod
    def energies(self, structures: Sequence[Atoms]) -> Float[np.ndarray, " n_systems"]:
        """Evaluate energies alone, in eV.

        Args:
            structures: Structures with moments.
        """

    @abstractmethod
    def predict_batch(self, structures: Sequence[Atoms], *, training: bool = False) -> list[Prediction]:
        """Evaluate everything for structures, in one batch if the potential can.

        Args:
            structures: Structures with moments.
            training: Whether to evaluate as in training, with graphs of the derivatives.
        """

    def predict(self, atoms: Atoms, *, training: bool = False) -> Prediction:
        """Evaluate everything for one structure.

        Args:
            atoms: Structure with moments.
            training: Whether to evaluate as in training, with graphs of the derivatives.
        """
        return self.predict_batch([atoms], training=training)[0]

    def reference_energy(self, atomic_number: int) -> float | None:  # noqa: ARG002 - most cannot tell
        """Energy of an isolated atom without moment in eV, if the potential states it."""
        return None

    def curvature(self, atoms: Atoms, change: Float[np.ndarray, "n_atoms 3"]) -> np.ndarray:
        """Product of the second derivatives ∂²E/∂m∂m with a change of the moments, in eV/μB.

        Here by differences of magforces with a quarter of the usual step.

        Args:
            atoms: Structure with moments.
            change: Change of the moments, in μB.
        """
        step = self.step / 4
        path = [with_magmoms(atoms, get_magmoms(atoms) + t * step * change) for t in FIVE_POINTS]
        return -difference([prediction.magforces for prediction in self.predict_batch(path)], step)

    def _energy_scale(self, atoms: Atoms, energy: float) -> float:
        """Energy relative to isolated atoms, but at least 1e-5 of the total, whose rounding is no violation."""
        for number in set(atoms.numbers.tolist()) - set(self._isolated):
            self._isolated[number] = float(self.energies([single_atom(number)])[0])
        interaction = energy - sum(self._isolated[number] for number in atoms.numbers.tolist())
        return max(abs(interaction), 1e-5 * abs(energy), 1e-8)


class ModelProbe(Probe):
    """An energy model of ours, whose second derivatives come from differentiating twice.

    Args:
        model: Energy model with attributes `elements`, `r_max` and `spin_orbit`.
    """

    modes = (False, True)
    r_max: float

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = cast("Any", model)  # what else it has, torch does not declare
        self.name = str(getattr(model, "metadata", {}).get("name") or type(model).__name__)
        self.r_max = float(self.model.r_max)
        self.elements = [int(z) for z in self.model.elements]
        self.spin_orbit = bool(self.model.spin_orbit)
        self.single_precision = getattr(model, "dtype", torch.float64) == torch.float32
        weights = {"weights"} if any(True for _ in model.parameters()) else set()
        self.provides = frozenset({"forces", "stress", "magforces", "batch", "r_max", "moments"} | weights)

    @override
    def max_moment(self, atomic_number: int) -> float:
        scale = getattr(getattr(self.model, "config", None), "moment_scale", None)
        return 3.0 if scale is None else float(scale(atomic_number))

    def graph(self, structures: Sequence[Atoms]) -> MagneticGraph:
        """Build the batch of some structures.

        Args:
            structures: Structures with moments.
        """
        return graph_from_atoms(
            list(structures),
            self.r_max,
            device=getattr(self.model, "device", None),
            dtype=getattr(self.model, "dtype", torch.float64),
        )

    @override
    def energies(self, structures: Sequence[Atoms]) -> Float[np.ndarray, " n_systems"]:
        output = evaluate(
            self.model,
            self.graph(structures),
            compute_forces=False,
            compute_stress=False,
            compute_magforces=False,
        )
        return output["energy"].double().cpu().numpy()

    @override
    def predict_batch(self, structures: Sequence[Atoms], *, training: bool = False) -> list[Prediction]:
        output = evaluate(self.model, self.graph(structures), training=training)
        arrays = {name: value.detach().double().cpu().numpy() for name, value in output.items()}
        ends = np.cumsum([len(atoms) for atoms in structures])
        return [
            Prediction(
                n_atoms=len(atoms),
                energy=float(arrays["energy"][index]),
                forces=arrays["forces"][end - len(atoms) : end],
                magforces=arrays["magforces"][end - len(atoms) : end],
                stress=arrays["stress"][index] if atoms.pbc.all() else None,
                energy_scale=self._energy_scale(atoms, float(arrays["energy"][index])),
                volume=abs(np.linalg.det(atoms.cell.array)) or 1.0,
            )
            for index, (atoms, end) in enumerate(zip(structures, ends, strict=True))
        ]

    @override
    def reference_energy(self, atomic_number: int) -> float | None:
        if hasattr(self.model, "energy_per_atom"):
            return float(self.model.energy_per_atom)
        energies = getattr(getattr(self.model, "reference", None), "atomic_energies", None)
        return None if energies is None else float(energies[self.model.species_table[atomic_number]])

    @override
    def curvature(self, atoms: Atoms, change: Float[np.ndarray, "n_atoms 3"]) -> np.ndarray:
        graph = self.graph([atoms])
        graph.magmoms = graph.magmoms.detach().requires_grad_()
        energy = self.model(graph)["energy"].sum()
        (gradient,) = torch.autograd.grad(energy, graph.magmoms, create_graph=True)
        direction = torch.as_tensor(change, dtype=gradient.dtype, device=gradient.device)
        (product,) = torch.autograd.grad((gradient * direction).sum(), graph.magmoms)
        return product.detach().double().cpu().numpy()


def difference(values: Sequence[Any] | np.ndarray, step: float) -> Any:
    """Derivative at zero to fourth order.

    Args:
        values: Numbers or arrays at `FIVE_POINTS`.
        step: Step.
    """
    return np.tensordot([1.0, -8.0, 8.0, -1.0], np.asarray(values), axes=1) / (12.0 * step)


def single_atom(atomic_number: int, magmom: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0)) -> Atoms:
    """Make one atom in empty space.

    Args:
        atomic_number: Element.
        magmom: Its moment, in μB.

    Returns:
        Non-periodic structure without cell.
    """
    atoms = Atoms(numbers=[atomic_number], positions=[[0.0, 0.0, 0.0]], pbc=False)
    return with_magmoms(atoms, np.array([magmom], dtype=float))


def with_magmoms(atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"]) -> Atoms:
    """Copy a structure with other moments.

    Args:
        atoms: Structure.
        magmoms: Moments, in μB.
    """
    new = atoms.copy()
    set_magmoms(new, magmoms)
    return new


def transformed(
    atoms: Atoms,
    *,
    space: Float[np.ndarray, "3 3"] | None = None,
    spin: Float[np.ndarray, "3 3"] | None = None,
) -> Atoms:
    """Apply linear maps to positions and cell, and to moments.

    Args:
        atoms: Structure with moments.
        space: Matrix for positions and cell.
        spin: Matrix for moments.
    """
    new = atoms.copy()
    if space is not None:
        new.set_cell(atoms.cell.array @ space.T)
        new.set_positions(atoms.get_positions() @ space.T)
    return new if spin is None else with_magmoms(new, get_magmoms(atoms) @ spin.T)

"""Evaluation of a model for the identities: structures in, arrays and the scale of their errors out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.batch import MagneticGraph, graph_from_atoms
from mmace_sim.model.derivatives import evaluate


@dataclass
class Prediction:
    """What a model says about one structure.

    Attributes:
        energy: In eV.
        forces: In eV/Å.
        magforces: In eV/μB.
        stress: In eV/Å³.
        energy_scale: Energy of interaction in eV, which errors are relative to.
        volume: In Å³; 1 for a structure without a cell.
    """

    energy: float
    forces: Float[np.ndarray, "n_atoms 3"]
    magforces: Float[np.ndarray, "n_atoms 3"]
    stress: Float[np.ndarray, "3 3"]
    energy_scale: float
    volume: float = 1.0

    @property
    def scales(self) -> dict[str, float]:
        """Scale of each quantity: its largest component, or the energy scale per Å, μB or volume if larger."""
        return {
            "energy": max(self.energy_scale, 1e-4 * abs(self.energy)),  # totals of 1e4 eV round to 1e-12 eV
            "forces": max(np.abs(self.forces).max(), self.energy_scale),
            "magforces": max(np.abs(self.magforces).max(), self.energy_scale),
            "stress": max(np.abs(self.stress).max(), self.energy_scale / self.volume),
        }

    def violation(self, other: "Prediction", **expected: float | np.ndarray) -> float:
        """Largest relative difference between what was expected and another prediction.

        Args:
            other: Prediction that should be equal.
            **expected: What it should be, where that is not simply the same as here.

        Returns:
            Largest of |other − expected| / scale over energy, forces, magforces and stress; infinite if not
            finite.
        """
        worst = 0.0
        for name, scale in self.scales.items():
            difference = np.abs(getattr(other, name) - expected.get(name, getattr(self, name))).max()
            worst = max(worst, float(difference) / scale) if np.isfinite(difference) else np.inf
        return worst


class Probe:
    """A model together with what the identities need to know about it.

    Args:
        model: Energy model in float64 with attributes `elements`, `r_max` and `spin_orbit`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.r_max: float = model.r_max
        self.elements: list[int] = [int(z) for z in model.elements]
        self.spin_orbit: bool = bool(model.spin_orbit)
        self.isolated: dict[int, float] = {}

    def max_moment(self, atomic_number: int) -> float:
        """Largest moment that the model was made for, in μB; 3 if it does not say.

        Args:
            atomic_number: Element.
        """
        config = getattr(self.model, "config", None)
        return 3.0 if config is None else float(config.moment_scale(atomic_number))

    def graph(self, structures: Sequence[Atoms]) -> MagneticGraph:
        """Build the batch of some structures.

        Args:
            structures: Structures with moments.
        """
        device = getattr(self.model, "device", None)
        return graph_from_atoms(list(structures), self.r_max, device=device)

    def energies(self, structures: Sequence[Atoms]) -> Float[np.ndarray, " n_systems"]:
        """Evaluate energies alone, in eV.

        Args:
            structures: Structures with moments.
        """
        output = evaluate(
            self.model,
            self.graph(structures),
            compute_forces=False,
            compute_stress=False,
            compute_magforces=False,
        )
        return output["energy"].double().cpu().numpy()

    def predict_batch(self, structures: Sequence[Atoms], *, training: bool = False) -> list[Prediction]:
        """Evaluate everything for structures in one batch.

        Args:
            structures: Structures with moments.
            training: Whether to evaluate as in training, with graphs of the derivatives.
        """
        output = evaluate(self.model, self.graph(structures), training=training)
        arrays = {name: value.detach().double().cpu().numpy() for name, value in output.items()}
        ends = np.cumsum([len(atoms) for atoms in structures])
        return [
            Prediction(
                energy=float(arrays["energy"][index]),
                forces=arrays["forces"][end - len(atoms) : end],
                magforces=arrays["magforces"][end - len(atoms) : end],
                stress=arrays["stress"][index],
                energy_scale=self._energy_scale(atoms, float(arrays["energy"][index])),
                volume=abs(np.linalg.det(atoms.cell.array)) or 1.0,
            )
            for index, (atoms, end) in enumerate(zip(structures, ends, strict=True))
        ]

    def predict(self, atoms: Atoms, *, training: bool = False) -> Prediction:
        """Evaluate everything for one structure.

        Args:
            atoms: Structure with moments.
            training: Whether to evaluate as in training, with graphs of the derivatives.
        """
        return self.predict_batch([atoms], training=training)[0]

    def _energy_scale(self, atoms: Atoms, energy: float) -> float:
        """Energy relative to isolated atoms, but at least 1e-5 of the total, whose rounding is no violation."""
        for number in set(atoms.numbers.tolist()) - set(self.isolated):
            self.isolated[number] = float(self.energies([single_atom(number)])[0])
        interaction = energy - sum(self.isolated[number] for number in atoms.numbers.tolist())
        return max(abs(interaction), 1e-5 * abs(energy), 1e-8)


def single_atom(atomic_number: int, magmom: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0)) -> Atoms:
    """Make one atom in empty space.

    Args:
        atomic_number: Element.
        magmom: Its moment, in μB.

    Returns:
        Non-periodic structure without cell.
    """
    atoms = Atoms(numbers=[atomic_number], positions=[[0.0, 0.0, 0.0]], pbc=False)
    set_magmoms(atoms, np.array([magmom], dtype=float))
    return atoms


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

    Returns:
        A changed copy.
    """
    new = atoms.copy()
    if space is not None:
        new.set_cell(atoms.cell.array @ space.T)
        new.set_positions(atoms.get_positions() @ space.T)
    if spin is not None:
        set_magmoms(new, get_magmoms(atoms) @ spin.T)
    return new

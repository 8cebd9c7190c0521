"""Any ASE calculator, seen by the identities like an energy model."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, override

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from jaxtyping import Float

from mmace_sim.testing.prediction import Prediction
from mmace_sim.testing.probe import Probe

MAGFORCE_NAMES: tuple[str, ...] = ("magforces", "magnetic_forces")
"""Names under which calculators return −∂E/∂m."""

_ABSENT = (PropertyNotImplementedError, NotImplementedError)


class CalculatorProbe(Probe):
    """An ASE calculator that reads ``initial_magmoms`` of shape (n_atoms, 3), one structure after the other.

    What it gives is found out by evaluating one structure.

    Args:
        calculator: The calculator.
        example: Periodic structure with moments that it can evaluate.
        elements: Atomic numbers that it was made for.
        r_max: Its cutoff radius, in Å.
        spin_orbit: Whether it claims spin–orbit coupling.
        max_moment: Largest moment that it was made for, in μB.
        single_precision: Whether it computes in float32.
    """

    def __init__(
        self,
        calculator: Any,
        example: Atoms,
        *,
        elements: Sequence[int],
        r_max: float | None = None,
        spin_orbit: bool | None = None,
        max_moment: float = 3.0,
        single_precision: bool = False,
    ) -> None:
        super().__init__()
        self.calculator = calculator
        self.name = type(calculator).__name__
        self.elements = [int(z) for z in elements]
        self.r_max, self.spin_orbit, self.single_precision = r_max, spin_orbit, single_precision
        self._max_moment = max_moment
        found = self._evaluate(example)
        given = {name for name, value in found.items() if name != "energy" and value is not None}
        self.provides = frozenset(given | {"moments"} | ({"r_max"} if r_max is not None else set()))

    @override
    def max_moment(self, atomic_number: int) -> float:
        return self._max_moment

    @override
    def energies(self, structures: Sequence[Atoms]) -> Float[np.ndarray, " n_systems"]:
        return np.array([self._attach(atoms).get_potential_energy() for atoms in structures], dtype=float)

    @override
    def predict_batch(self, structures: Sequence[Atoms], *, training: bool = False) -> list[Prediction]:
        predictions = []
        for atoms in structures:
            found = self._evaluate(atoms)
            predictions.append(
                Prediction(
                    n_atoms=len(atoms),
                    energy_scale=self._energy_scale(atoms, found["energy"]),
                    volume=abs(np.linalg.det(atoms.cell.array)) or 1.0,
                    **found,
                )
            )
        return predictions

    def _attach(self, atoms: Atoms) -> Atoms:
        """A copy with the calculator; what it remembers is dropped, as it may not notice that moments changed."""
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()
        new = atoms.copy()
        new.calc = self.calculator
        return new

    def _evaluate(self, atoms: Atoms) -> dict[str, Any]:
        new = self._attach(atoms)
        energy = float(new.get_potential_energy())
        found: dict[str, Any] = {"energy": energy, "forces": None, "stress": None}
        with suppress(*_ABSENT):
            found["forces"] = np.array(new.get_forces(apply_constraint=False), dtype=float)
        if atoms.pbc.all():
            with suppress(*_ABSENT):
                found["stress"] = np.array(new.get_stress(voigt=False, apply_constraint=False), dtype=float)
        return found | {"magforces": self._magforces(new)}

    def _magforces(self, atoms: Atoms) -> np.ndarray | None:
        """Read from the results, or ask by name where the calculator lists it."""
        for name in MAGFORCE_NAMES:
            value = getattr(self.calculator, "results", {}).get(name)
            if value is None and name in getattr(self.calculator, "implemented_properties", ()):
                with suppress(*_ABSENT):
                    value = self.calculator.get_property(name, atoms)
            if value is not None:
                return np.array(value, dtype=float).reshape(len(atoms), 3)
        return None

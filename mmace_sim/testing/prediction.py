"""What a potential says about one structure, and by how much two such answers differ."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

MEV_PER_EV: float = 1000.0


@dataclass(frozen=True)
class Violation:
    """By how much something that must hold does not.

    Attributes:
        relative: Error divided by the scale of the quantity, see `Prediction.scales`; infinite if not finite.
        energy: The error in meV/atom: of the energy per atom, of forces times 1 Å, of magforces times 1 μB, of
            the stress times the volume per atom, whichever is largest; None if the error is of none of these.
    """

    relative: float
    energy: float | None = None


def worst(*violations: Violation) -> Violation:
    """Combine violations: the largest relative error and the largest energy, whichever they come from.

    Args:
        *violations: At least one.
    """
    energies = [violation.energy for violation in violations if violation.energy is not None]
    return Violation(max(violation.relative for violation in violations), max(energies, default=None))


@dataclass
class Prediction:
    """What a potential says about one structure; a quantity that it does not give is None.

    Attributes:
        n_atoms: Number of atoms.
        energy: In eV.
        forces: In eV/Å.
        magforces: In eV/μB.
        stress: In eV/Å³.
        energy_scale: Energy of interaction in eV, which errors are relative to.
        volume: In Å³; 1 for a structure without a cell.
    """

    n_atoms: int
    energy: float
    forces: Float[np.ndarray, "n_atoms 3"] | None
    magforces: Float[np.ndarray, "n_atoms 3"] | None
    stress: Float[np.ndarray, "3 3"] | None
    energy_scale: float
    volume: float = 1.0

    def given(self, name: str) -> np.ndarray:
        """A quantity that an identity cannot do without.

        Args:
            name: "forces", "magforces" or "stress".

        Raises:
            ValueError: If the potential does not give it.
        """
        values = getattr(self, name)
        if values is None:
            raise ValueError(f"the potential gives no {name}; an identity that needs them is to be skipped.")
        return values

    @property
    def scales(self) -> dict[str, float]:
        """Scale of each quantity: its largest component, or the energy scale per Å, μB or volume if larger."""
        scales = {"energy": max(self.energy_scale, 1e-4 * abs(self.energy))}  # 1e4 eV round to 1e-12 eV
        for name, smallest in (
            ("forces", self.energy_scale),
            ("magforces", self.energy_scale),
            ("stress", self.energy_scale / self.volume),
        ):
            if getattr(self, name) is not None:
                scales[name] = max(float(np.abs(getattr(self, name)).max()), smallest)
        return scales

    def error(self, name: str, difference: float, *, least_scale: float = 0.0) -> Violation:
        """Express an error of one quantity as a violation.

        Args:
            name: "energy", "forces", "magforces" or "stress".
            difference: The error, in the unit of the quantity.
            least_scale: Scale of the relative error where it is larger than that of the quantity.
        """
        if not np.isfinite(difference):
            return Violation(np.inf, np.inf)
        per_atom = {"energy": 1.0 / self.n_atoms, "stress": self.volume / self.n_atoms}.get(name, 1.0)
        size = abs(float(difference))
        return Violation(size / max(self.scales[name], least_scale), MEV_PER_EV * size * per_atom)

    def violation(self, other: "Prediction", **expected: float | np.ndarray | None) -> Violation:
        """Compare what was expected with another prediction, in every quantity that both have.

        Args:
            other: Prediction that should be equal.
            **expected: What it should be, where that is not simply the same as here.
        """
        errors = []
        for name in self.scales:
            theirs = getattr(other, name)
            ours = expected.get(name, getattr(self, name))
            if theirs is not None and ours is not None:
                errors.append(self.error(name, np.abs(np.asarray(theirs - ours)).max()))
        return worst(*errors)

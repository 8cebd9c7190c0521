"""The identities of a magnetic model, their tolerances, and how well a given model obeys them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.testing import differences, limits, symmetries
from mmace_sim.testing.probe import Probe
from mmace_sim.testing.structures import random_structure


@dataclass(frozen=True)
class Identity:
    """Something that is true of every magnetic model.

    Attributes:
        name: Name.
        statement: What must hold.
        measure: Function (probe, atoms, rng) of the relative violation.
        tolerance: Largest violation that is put down to rounding, in float64.
        spin_orbit: False if it holds only without spin–orbit coupling.
        smooth: True if it needs second derivatives of the energy at m = 0.
    """

    name: str
    statement: str
    measure: Callable[[Probe, Atoms, np.random.Generator], float]
    tolerance: float
    spin_orbit: bool = True
    smooth: bool = False

    def applies_to(self, model: Any) -> bool:
        """Say whether the identity holds for a model, as far as the model's own `spin_orbit` tells.

        Args:
            model: Energy model.
        """
        return self.spin_orbit or not model.spin_orbit


IDENTITIES: dict[str, Identity] = {
    identity.name: identity
    for identity in (
        Identity("joint_rotation", "E(Rr, Rm) = E(r, m)", symmetries.joint_rotation, 1e-10),
        Identity("inversion", "E(−r, m) = E(r, m)", symmetries.inversion, 1e-10),
        Identity("time_reversal", "E(r, −m) = E(r, m)", symmetries.time_reversal, 1e-10),
        Identity(
            "no_field_without_moments", "∂E/∂m = 0 at m = 0", symmetries.no_field_without_moments, 1e-10
        ),
        Identity(
            "spin_rotation",
            "E(r, Sm) = E(r, m), S in O(3)",
            symmetries.spin_rotation,
            1e-10,
            spin_orbit=False,
        ),
        Identity("translation", "E(r + t, m) = E(r, m)", symmetries.translation, 1e-10),
        Identity("permutation", "order of atoms is arbitrary", symmetries.permutation, 1e-10),
        Identity("supercell", "E(n cells) = n E(cell)", symmetries.supercell, 1e-10),
        Identity("batch_equals_single", "systems are independent", symmetries.batch_equals_single, 1e-10),
        Identity("no_jump_at_cutoff", "E, ∂E continuous at r_max", limits.no_jump_at_cutoff, 1e-8),
        Identity("isolated_atom", "E = E0 + E1(|m|), E1(0) = 0", limits.isolated_atom, 1e-10),
        Identity("growth_above_max_moment", "bounded for |m| > m_max", limits.growth_above_max_moment, 100.0),
        Identity("forces_and_stress", "−∂E/∂r, ∂E/∂ε = differences", differences.forces_and_stress, 1e-6),
        Identity("magforces", "−∂E/∂m = differences", differences.magforces, 1e-6),
        Identity(
            "smooth_through_zero",
            "∂²E/∂m² finite at m = 0",
            differences.smooth_through_zero,
            1e-6,
            smooth=True,
        ),
        Identity("training_gradient", "∂loss/∂weights = differences", differences.training_gradient, 1e-6),
    )
}
"""Every identity of DESIGN §3 by its name."""


def measure_identities(
    model: Any, *, names: Sequence[str] | None = None, n_structures: int = 3, seed: int = 0
) -> dict[str, float]:
    """Measure the largest violation of each identity over random structures.

    Args:
        model: Energy model in float64, as `mmace_sim.model.magnetic_mace.MagneticMACE`.
        names: Identities to measure; by default all of `IDENTITIES`.
        n_structures: Number of random structures, of 1 to 4 atoms.
        seed: Seed of the structures.

    Returns:
        Largest relative violation of each identity that applies to the model; for
        ``growth_above_max_moment``, the ratio.
    """
    probe = Probe(model)
    violations: dict[str, float] = {}
    for name in IDENTITIES if names is None else names:
        identity = IDENTITIES[name]
        if not identity.applies_to(model):
            continue
        rng = np.random.default_rng(seed)
        violations[name] = max(
            identity.measure(probe, structure_for(probe, rng, n_atoms=1 + index % 4), rng)
            for index in range(n_structures)
        )
    return violations


def structure_for(probe: Probe, rng: np.random.Generator, *, n_atoms: int) -> Atoms:
    """Draw a random structure that a model was made for.

    Args:
        probe: Model.
        rng: Source of randomness.
        n_atoms: Number of atoms.
    """
    longest = min(probe.max_moment(z) for z in probe.elements)
    return random_structure(rng, elements=probe.elements, n_atoms=n_atoms, max_moment=longest)

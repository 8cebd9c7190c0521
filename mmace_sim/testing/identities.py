"""The identities of a magnetic potential, their tolerances, and how well a given one obeys them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from torch import nn

from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.testing import differences, limits, symmetries
from mmace_sim.testing.prediction import Violation
from mmace_sim.testing.probe import ModelProbe, Probe
from mmace_sim.testing.structures import random_structure


@dataclass(frozen=True)
class Identity:
    """Something that is true of every magnetic potential.

    Attributes:
        name: Name.
        statement: What must hold.
        measure: Function (probe, atoms, rng) of the violation.
        tolerance: Largest relative violation that is put down to rounding, in float64.
        tolerance_single: The same in float32.
        needs: What the potential (see `Probe.provides`) and the structure ("cell", "moments") must have.
        spin_orbit: False if it holds only without spin–orbit coupling.
        smooth: True if it needs second derivatives of the energy at m = 0.
    """

    name: str
    statement: str
    measure: Callable[[Any, Atoms, np.random.Generator], Violation]
    tolerance: float
    tolerance_single: float
    needs: frozenset[str] = frozenset()
    spin_orbit: bool = True
    smooth: bool = False

    def applies_to(self, probe: Probe, atoms: Atoms | None = None) -> bool:
        """Say whether the identity holds for a potential and can be measured.

        Args:
            probe: The potential; what it says about spin–orbit coupling counts.
            atoms: Structure to measure it on; None if there is one with a cell and moments.
        """
        if not self.spin_orbit and probe.spin_orbit is not False:
            return False
        has = probe.provides | {"cell"}
        if atoms is not None and not atoms.pbc.all():
            has -= {"cell"}
        if atoms is not None and not get_magmoms(atoms).any():
            has -= {"moments"}
        return self.needs <= has


_ROUNDING = (1e-10, 1e-4)
_DIFFERENCES = (1e-6, 1e-2)
"""Tolerances in double and single precision."""

_MAGNETISM = frozenset({"moments"})
_FIELDS = frozenset({"moments", "magforces"})


IDENTITIES: dict[str, Identity] = {
    identity.name: identity
    for identity in (
        Identity("joint_rotation", "E(Rr, Rm) = E(r, m)", symmetries.joint_rotation, *_ROUNDING),
        Identity("inversion", "E(−r, m) = E(r, m)", symmetries.inversion, *_ROUNDING),
        Identity("time_reversal", "E(r, −m) = E(r, m)", symmetries.time_reversal, *_ROUNDING, _MAGNETISM),
        Identity(
            "no_field_without_moments",
            "∂E/∂m = 0 at m = 0",
            symmetries.no_field_without_moments,
            *_ROUNDING,
            _FIELDS,
        ),
        Identity(
            "spin_rotation",
            "E(r, Sm) = E(r, m), S in O(3)",
            symmetries.spin_rotation,
            *_ROUNDING,
            _MAGNETISM,
            spin_orbit=False,
        ),
        Identity("translation", "E(r + t, m) = E(r, m)", symmetries.translation, *_ROUNDING),
        Identity("permutation", "order of atoms is arbitrary", symmetries.permutation, *_ROUNDING),
        Identity(
            "supercell", "E(n cells) = n E(cell)", symmetries.supercell, *_ROUNDING, frozenset({"cell"})
        ),
        Identity(
            "batch_equals_single",
            "systems are independent",
            symmetries.batch_equals_single,
            *_ROUNDING,
            frozenset({"batch"}),
        ),
        Identity(
            "no_jump_at_cutoff",
            "E, ∂E continuous at r_max",
            limits.no_jump_at_cutoff,
            1e-7,  # 1e-6 Å beside a cutoff function with one continuous derivative
            1e-4,
            frozenset({"r_max"}),
        ),
        Identity("isolated_atom", "E = E0 + E1(|m|), E1(0) = 0", limits.isolated_atom, *_ROUNDING),
        Identity(
            "growth_above_max_moment",
            "bounded for |m| > m_max",
            limits.growth_above_max_moment,
            100.0,
            100.0,
            _MAGNETISM,
        ),
        Identity("forces", "−∂E/∂r = differences", differences.forces, *_DIFFERENCES, frozenset({"forces"})),
        Identity(
            "stress", "∂E/∂ε = differences", differences.stress, *_DIFFERENCES, frozenset({"stress", "cell"})
        ),
        Identity("magforces", "−∂E/∂m = differences", differences.magforces, *_DIFFERENCES, _FIELDS),
        Identity(
            "smooth_through_zero",
            "∂²E/∂m² finite at m = 0",
            differences.smooth_through_zero,
            *_DIFFERENCES,
            _FIELDS,
            smooth=True,
        ),
        Identity(
            "smooth_rotation",
            "E(θ) of a moment is smooth",
            differences.smooth_rotation,
            *_DIFFERENCES,
            _MAGNETISM,
        ),
        Identity(
            "training_gradient",
            "∂loss/∂weights = differences",
            differences.training_gradient,
            *_DIFFERENCES,
            frozenset({"weights"}),
        ),
    )
}
"""Every identity of DESIGN §3 by its name."""


def measure_identities(
    model: nn.Module, *, names: Sequence[str] | None = None, n_structures: int = 3, seed: int = 0
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
    probe = ModelProbe(model)
    violations: dict[str, float] = {}
    for name in IDENTITIES if names is None else names:
        identity = IDENTITIES[name]
        if not identity.applies_to(probe):
            continue
        rng = np.random.default_rng(seed)
        violations[name] = max(
            identity.measure(probe, structure_for(probe, rng, n_atoms=1 + index % 4), rng).relative
            for index in range(n_structures)
        )
    return violations


def structure_for(probe: Probe, rng: np.random.Generator, *, n_atoms: int) -> Atoms:
    """Draw a random structure that a potential was made for.

    Args:
        probe: The potential.
        rng: Source of randomness.
        n_atoms: Number of atoms.
    """
    longest = min(probe.max_moment(z) for z in probe.elements)
    return random_structure(rng, elements=probe.elements, n_atoms=n_atoms, max_moment=longest)

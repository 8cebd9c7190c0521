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


def _identity(
    measure: Callable[[Any, Atoms, np.random.Generator], Violation],
    statement: str,
    tolerances: tuple[float, float],
    *needs: str,
    **kinds: bool,
) -> Identity:
    """The identity that a function of its own name measures."""
    return Identity(measure.__name__, statement, measure, *tolerances, frozenset(needs), **kinds)


_ROUNDING, _DIFFERENCES = (1e-10, 1e-4), (1e-6, 1e-2)
_BESIDE_CUTOFF = (1e-7, 1e-4)  # 1e-6 Å beside a cutoff function with one continuous derivative
_FACTOR = (100.0, 100.0)
"""Tolerances in double and single precision."""

_ALL: tuple[Identity, ...] = (
    _identity(symmetries.joint_rotation, "E(Rr, Rm) = E(r, m)", _ROUNDING),
    _identity(symmetries.inversion, "E(−r, m) = E(r, m)", _ROUNDING),
    _identity(symmetries.time_reversal, "E(r, −m) = E(r, m)", _ROUNDING, "moments"),
    _identity(symmetries.no_field_without_moments, "∂E/∂m = 0 at m = 0", _ROUNDING, "moments", "magforces"),
    _identity(symmetries.spin_rotation, "E(r, Sm) = E(r, m), S in O(3)", _ROUNDING, "moments", spin_orbit=False),
    _identity(symmetries.translation, "E(r + t, m) = E(r, m)", _ROUNDING),
    _identity(symmetries.permutation, "order of atoms is arbitrary", _ROUNDING),
    _identity(symmetries.supercell, "E(n cells) = n E(cell)", _ROUNDING, "cell"),
    _identity(symmetries.batch_equals_single, "systems are independent", _ROUNDING, "batch"),
    _identity(limits.no_jump_at_cutoff, "E, ∂E continuous at r_max", _BESIDE_CUTOFF, "r_max"),
    _identity(limits.isolated_atom, "E = E0 + E1(|m|), E1(0) = 0", _ROUNDING),
    _identity(limits.growth_above_max_moment, "bounded for |m| > m_max", _FACTOR, "moments"),
    _identity(differences.forces, "−∂E/∂r = differences", _DIFFERENCES, "forces"),
    _identity(differences.stress, "∂E/∂ε = differences", _DIFFERENCES, "stress", "cell"),
    _identity(differences.magforces, "−∂E/∂m = differences", _DIFFERENCES, "moments", "magforces"),
    _identity(
        differences.smooth_through_zero, "∂²E/∂m² finite at m = 0", _DIFFERENCES, "moments", "magforces", smooth=True
    ),
    _identity(differences.smooth_rotation, "E(θ) of a moment is smooth", _DIFFERENCES, "moments"),
    _identity(differences.training_gradient, "∂loss/∂weights = differences", _DIFFERENCES, "weights"),
)  # fmt: skip

IDENTITIES: dict[str, Identity] = {identity.name: identity for identity in _ALL}
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
    """Draw a random structure that a potential was made for."""
    longest = min(probe.max_moment(z) for z in probe.elements)
    return random_structure(rng, elements=probe.elements, n_atoms=n_atoms, max_moment=longest)

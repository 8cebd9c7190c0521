"""The identities of a magnetic potential, their tolerances, and how well a given one obeys them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

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


def _symmetry(name: str, statement: str, *needs: str, **kwargs: bool) -> Identity:
    measure = getattr(symmetries, name, None) or getattr(limits, name)
    return Identity(name, statement, measure, 1e-10, 1e-4, frozenset(needs), **kwargs)


def _derivative(name: str, statement: str, *needs: str, **kwargs: bool) -> Identity:
    return Identity(name, statement, getattr(differences, name), 1e-6, 1e-2, frozenset(needs), **kwargs)


IDENTITIES: dict[str, Identity] = {
    identity.name: identity
    for identity in (
        _symmetry("joint_rotation", "E(Rr, Rm) = E(r, m)"),
        _symmetry("inversion", "E(−r, m) = E(r, m)"),
        _symmetry("time_reversal", "E(r, −m) = E(r, m)", "moments"),
        _symmetry("no_field_without_moments", "∂E/∂m = 0 at m = 0", "magforces", "moments"),
        _symmetry("spin_rotation", "E(r, Sm) = E(r, m), S in O(3)", "moments", spin_orbit=False),
        _symmetry("translation", "E(r + t, m) = E(r, m)"),
        _symmetry("permutation", "order of atoms is arbitrary"),
        _symmetry("supercell", "E(n cells) = n E(cell)", "cell"),
        _symmetry("batch_equals_single", "systems are independent", "batch"),
        Identity(
            "no_jump_at_cutoff",
            "E, ∂E continuous at r_max",
            limits.no_jump_at_cutoff,
            1e-7,  # 1e-6 Å beside a cutoff function with one continuous derivative
            1e-4,
            frozenset({"r_max"}),
        ),
        _symmetry("isolated_atom", "E = E0 + E1(|m|), E1(0) = 0"),
        Identity(
            "growth_above_max_moment",
            "bounded for |m| > m_max",
            limits.growth_above_max_moment,
            100.0,
            100.0,
            frozenset({"moments"}),
        ),
        _derivative("forces", "−∂E/∂r = differences", "forces"),
        _derivative("stress", "∂E/∂ε = differences", "stress", "cell"),
        _derivative("magforces", "−∂E/∂m = differences", "magforces", "moments"),
        _derivative("smooth_through_zero", "∂²E/∂m² finite at m = 0", "magforces", "moments", smooth=True),
        _derivative("smooth_rotation", "E(θ) of a moment is smooth", "moments"),
        _derivative("training_gradient", "∂loss/∂weights = differences", "weights"),
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

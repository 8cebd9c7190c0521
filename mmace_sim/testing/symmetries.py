"""Symmetries that every magnetic potential obeys, each as a function (probe, atoms, rng) → violation."""

from dataclasses import replace

import numpy as np
from ase import Atoms

from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.testing.prediction import Violation, worst
from mmace_sim.testing.probe import Probe, transformed, with_magmoms
from mmace_sim.testing.structures import random_rotation, random_structure


def joint_rotation(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare with positions, cell and moments rotated together: E(Rr, Rm) = E(r, m)."""
    rotation = random_rotation(rng)
    before = probe.predict(atoms)
    after = probe.predict(transformed(atoms, space=rotation, spin=rotation))
    return before.violation(
        after,
        forces=_mapped(before.forces, rotation),
        magforces=_mapped(before.magforces, rotation),
        stress=None if before.stress is None else rotation @ before.stress @ rotation.T,
    )


def inversion(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:  # noqa: ARG001 - one signature
    """Compare with space inverted and moments, which are axial, unchanged: E(−r, m) = E(r, m)."""
    before, inverted = probe.predict(atoms), -np.eye(3)
    after = probe.predict(transformed(atoms, space=inverted))
    return before.violation(after, forces=_mapped(before.forces, inverted))


def time_reversal(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:  # noqa: ARG001
    """Compare with all moments reversed: E(r, −m) = E(r, m); magforces change sign."""
    before, reversed_ = probe.predict(atoms), -np.eye(3)
    after = probe.predict(transformed(atoms, spin=reversed_))
    return before.violation(after, magforces=_mapped(before.magforces, reversed_))


def no_field_without_moments(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:  # noqa: ARG001
    """Measure magforces when all moments are zero: time reversal forbids them."""
    nothing = probe.predict(transformed(atoms, spin=np.zeros((3, 3))))
    return probe.predict(atoms).error("magforces", np.abs(nothing.given("magforces")).max())


def spin_rotation(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare with moments alone rotated or reflected: E(r, Sm) = E(r, m) without spin–orbit coupling."""
    before = probe.predict(atoms)
    violations = []
    for improper in (False, True):
        rotation = random_rotation(rng, improper=improper)
        after = probe.predict(transformed(atoms, spin=rotation))
        violations.append(before.violation(after, magforces=_mapped(before.magforces, rotation)))
    return worst(*violations)


def translation(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare with all atoms shifted, wrapped into the cell, and other vectors of the same lattice chosen."""
    moved = atoms.copy()
    moved.translate(rng.normal(size=3))
    if atoms.pbc.all():
        moved.wrap()
        moved.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]]) @ atoms.cell.array)
    return probe.predict(atoms).violation(probe.predict(moved))


def permutation(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare with the atoms in another order."""
    order = rng.permutation(len(atoms))
    before = probe.predict(atoms)
    after = probe.predict(atoms[order])
    return before.violation(
        after, forces=_rows(before.forces, order), magforces=_rows(before.magforces, order)
    )


def supercell(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare with a cell twice or thrice as large: energy is extensive."""
    repeats = rng.permutation([int(rng.integers(2, 4)), 1, 1])
    n = int(np.prod(repeats))
    before, after = probe.predict(atoms), probe.predict(atoms.repeat(repeats))
    copies = np.tile(np.arange(len(atoms)), n)
    return before.violation(
        replace(after, energy=after.energy / n),
        forces=_rows(before.forces, copies),
        magforces=_rows(before.magforces, copies),
    )


def batch_equals_single(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare a batch of structures with one after the other."""
    longest = min(probe.max_moment(z) for z in probe.elements)
    others = [random_structure(rng, elements=probe.elements, n_atoms=n, max_moment=longest) for n in (1, 5)]
    structures = [others[0], atoms, others[1]]
    together = probe.predict_batch(structures)
    pairs = zip(structures, together, strict=True)
    return worst(*[probe.predict(structure).violation(prediction) for structure, prediction in pairs])


def zero_some_moments(atoms: Atoms, n_zero: int) -> Atoms:
    """Copy a structure with the first few moments set to zero.

    Args:
        atoms: Structure with moments.
        n_zero: Number of atoms, from the first.
    """
    magmoms = get_magmoms(atoms)
    magmoms[:n_zero] = 0.0
    return with_magmoms(atoms, magmoms)


def _mapped(vectors: np.ndarray | None, matrix: np.ndarray) -> np.ndarray | None:
    return None if vectors is None else vectors @ matrix.T


def _rows(vectors: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if vectors is None else vectors[rows]

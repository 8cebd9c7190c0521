"""Symmetries that every magnetic model obeys, each as a function (probe, atoms, rng) → relative violation."""

import numpy as np
from ase import Atoms

from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.testing.probe import Probe, transformed
from mmace_sim.testing.structures import random_rotation, random_structure


def joint_rotation(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare with positions, cell and moments rotated together: E(Rr, Rm) = E(r, m)."""
    rotation = random_rotation(rng)
    before = probe.predict(atoms)
    after = probe.predict(transformed(atoms, space=rotation, spin=rotation))
    return before.violation(
        after,
        forces=before.forces @ rotation.T,
        magforces=before.magforces @ rotation.T,
        stress=rotation @ before.stress @ rotation.T,
    )


def inversion(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:  # noqa: ARG001 - one signature
    """Compare with space inverted and moments, which are axial, unchanged: E(−r, m) = E(r, m)."""
    before = probe.predict(atoms)
    return before.violation(probe.predict(transformed(atoms, space=-np.eye(3))), forces=-before.forces)


def time_reversal(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:  # noqa: ARG001
    """Compare with all moments reversed: E(r, −m) = E(r, m); magforces change sign."""
    before = probe.predict(atoms)
    return before.violation(probe.predict(transformed(atoms, spin=-np.eye(3))), magforces=-before.magforces)


def no_field_without_moments(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:  # noqa: ARG001
    """Measure magforces when all moments are zero: time reversal forbids them."""
    nothing = probe.predict(transformed(atoms, spin=np.zeros((3, 3))))
    if not np.isfinite(nothing.magforces).all():
        return np.inf
    return float(np.abs(nothing.magforces).max()) / probe.predict(atoms).scales["magforces"]


def spin_rotation(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare with moments alone rotated or reflected: E(r, Sm) = E(r, m) without spin–orbit coupling."""
    before = probe.predict(atoms)
    worst = 0.0
    for improper in (False, True):
        rotation = random_rotation(rng, improper=improper)
        after = probe.predict(transformed(atoms, spin=rotation))
        worst = max(worst, before.violation(after, magforces=before.magforces @ rotation.T))
    return worst


def translation(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare with all atoms shifted, wrapped into the cell, and other vectors of the same lattice chosen."""
    moved = atoms.copy()
    moved.translate(rng.normal(size=3))
    if atoms.pbc.all():
        moved.wrap()
        moved.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]]) @ atoms.cell.array)
    return probe.predict(atoms).violation(probe.predict(moved))


def permutation(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare with the atoms in another order."""
    order = rng.permutation(len(atoms))
    before = probe.predict(atoms)
    after = probe.predict(atoms[order])
    return before.violation(after, forces=before.forces[order], magforces=before.magforces[order])


def supercell(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare with a cell twice or thrice as large: energy is extensive."""
    repeats = rng.permutation([int(rng.integers(2, 4)), 1, 1])
    n = int(np.prod(repeats))
    before = probe.predict(atoms)
    after = probe.predict(atoms.repeat(repeats))
    return before.violation(
        after,
        energy=n * before.energy,
        forces=np.tile(before.forces, (n, 1)),
        magforces=np.tile(before.magforces, (n, 1)),
    )


def batch_equals_single(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare a batch of structures with one after the other."""
    others = [
        random_structure(
            rng, elements=probe.elements, n_atoms=n, max_moment=float(np.linalg.norm(m, axis=1).max())
        )
        for n, m in ((1, get_magmoms(atoms)), (5, get_magmoms(atoms)))
    ]
    structures = [others[0], atoms, others[1]]
    together = probe.predict_batch(structures)
    return max(
        probe.predict(structure).violation(prediction)
        for structure, prediction in zip(structures, together, strict=True)
    )


def zero_some_moments(atoms: Atoms, n_zero: int) -> Atoms:
    """Copy a structure with the first few moments set to zero.

    Args:
        atoms: Structure with moments.
        n_zero: Number of atoms, from the first.

    Returns:
        The changed copy.
    """
    magmoms = get_magmoms(atoms)
    magmoms[:n_zero] = 0.0
    new = atoms.copy()
    set_magmoms(new, magmoms)
    return new

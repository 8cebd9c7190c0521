"""Turn all moments of a structure together to where its magnetic symmetry is highest.

Without spin–orbit coupling a common rotation of all moments changes nothing, but the magnetic space group, in which
moments are tied to the lattice, depends on it. The most symmetric choice is what a table of magnetic structures lists.
"""

import itertools

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from jaxtyping import Float

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.spglib_call import call_spglib
from mmace_sim.structures.magnetic_order import (
    MOMENT_TOL,
    MagneticOrder,
    MagneticSymmetry,
    classify_order,
    magnetic_primitive,
    moment_deviations,
    symmetry_of_primitive,
)
from mmace_sim.structures.parent import axial_rotations, operation_images, rotation_axes


def best_rotation(
    atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"], *, symprec: float = 0.01
) -> Float[np.ndarray, "3 3"]:
    """The rotation of all moments to the axes that leave most magnetic symmetry.

    The longest moment is put along a symmetry axis of the structure, the plane that it spans with another one along a
    second axis, and all pairs of axes are tried.

    Args:
        atoms: Magnetic primitive cell; its own moments do not matter.
        magmoms: Moments, in μB.
        symprec: Tolerance of positions, in Å; that of moments is ten times as large, in μB.

    Returns:
        Proper rotation; moments turn as ``magmoms @ rotation``. The identity if nothing is better, for a structure that
        is no crystal, and without moments.
    """
    best = np.eye(3)
    if not atoms.pbc.all() or np.linalg.norm(magmoms, axis=1).max(initial=0.0) < MOMENT_TOL:
        return best
    found = call_spglib("get_symmetry", atoms, symprec=symprec)
    if found is None:
        return best
    images, _ = operation_images(atoms, found["rotations"], found["translations"], symprec)
    turns = axial_rotations(atoms.cell.array, found["rotations"])
    axes = rotation_axes(turns)

    def n_kept(turned: Float[np.ndarray, "n_atoms 3"]) -> int:
        return int((moment_deviations(turned, turns, images) < 10 * symprec).sum())

    most = n_kept(magmoms)
    is_collinear = classify_order(magmoms) is not MagneticOrder.NON_COLLINEAR
    own = _frame(magmoms)
    for frame in [_completed(axis) for axis in axes] if is_collinear else _frames(axes):
        rotation = own.T @ frame
        count = n_kept(magmoms @ rotation)
        if count > most:
            best, most = rotation, count
    return best


def symmetry_of_moments(
    atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"], *, turn: bool, symprec: float
) -> MagneticSymmetry | None:
    """Magnetic space group of a structure with results on a ``SinglePointCalculator``.

    Args:
        atoms: Structure; its moments are turned in place, those of its results too.
        magmoms: Its moments, in μB.
        turn: Turn all moments together to where the group is largest; for energies that do not depend on that.
        symprec: Tolerance of positions, in Å; that of moments is ten times as large, in μB.

    Returns:
        The group; None if spglib names none.
    """
    cell, members = magnetic_primitive(atoms, magmoms, symprec=symprec)
    if turn:
        magmoms = magmoms @ best_rotation(cell, magmoms[members], symprec=symprec) + 0.0
        results = dict(atoms.calc.results) | {"magmoms": magmoms}
        set_magmoms(atoms, magmoms)
        atoms.calc = SinglePointCalculator(atoms, **results)
    return symmetry_of_primitive(cell, magmoms[members], symprec=symprec)


def _frame(magmoms: Float[np.ndarray, "n_atoms 3"]) -> Float[np.ndarray, "3 3"]:
    """Right-handed axes as rows: the longest moment, the rest of the one farthest from it, their normal."""
    first = magmoms[np.argmax(np.linalg.norm(magmoms, axis=1))]
    first = first / np.linalg.norm(first)
    rest = magmoms - np.outer(magmoms @ first, first)
    second = rest[np.argmax(np.linalg.norm(rest, axis=1))]
    if np.linalg.norm(second) < MOMENT_TOL:
        return _completed(first)
    second = second / np.linalg.norm(second)
    return np.array([first, second, np.cross(first, second)])


def _completed(first: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Right-handed axes as rows that begin with a given one."""
    second = np.cross(first, np.eye(3)[np.argmin(np.abs(first))])
    second = second / np.linalg.norm(second)
    return np.array([first, second, np.cross(first, second)])


def _frames(axes: Float[np.ndarray, "n 3"]) -> list[Float[np.ndarray, "3 3"]]:
    """Right-handed frames of two perpendicular symmetry axes, either of which may point both ways."""
    frames = []
    for first, second in itertools.permutations(axes, 2):
        if abs(first @ second) < 1e-6:
            frames += [np.array([first, sign * second, sign * np.cross(first, second)]) for sign in (1, -1)]
            frames += [np.array([first, sign * np.cross(first, second), -sign * second]) for sign in (1, -1)]
    unique: dict[bytes, np.ndarray] = {(np.round(frame, 6) + 0.0).tobytes(): frame for frame in frames}
    return list(unique.values())

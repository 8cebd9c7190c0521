"""Names of magnetic orders (from `mmace_sim.graph.magnetic_order`), and magnetic space groups.

spglib finds the operations of a structure and names its group. Which operations keep the moments is decided here: where
moments are alike only within about its tolerance, spglib's own search ends the process or returns what is no group
(2.8.0 crashes for any ferromagnet of 0.05–0.1 μB at a tolerance of 0.1 μB; the kind of its issues 249 and 515).
"""

import itertools
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float, Int

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.magnetic_order import (
    ANGLE_TOL,
    INDUCED_TOL,
    MOMENT_TOL,
    NET_TOL,
    MagneticOrder,
    classify_order,
)
from mmace_sim.graph.spglib_call import ask_spglib, call_spglib
from mmace_sim.structures.parent import axial_rotations, operation_images

__all__ = [
    "ANGLE_TOL",
    "INDUCED_TOL",
    "MOMENT_TOL",
    "NET_TOL",
    "MagneticOperations",
    "MagneticOrder",
    "MagneticSymmetry",
    "classify_order",
    "magnetic_operations",
    "magnetic_primitive",
    "magnetic_symmetry",
    "moment_deviations",
    "symmetry_of_primitive",
]

_SAME = 1e-4
"""Moments that differ by less (μB) are the same."""


@dataclass(frozen=True)
class MagneticSymmetry:
    """The magnetic space group of a structure.

    Attributes:
        bns_number: Number in the notation of Belov, Neronova and Smirnova, such as ``139.537``.
        uni_number: Unified number (1–1651) of Campbell et al. (2022), as used by spglib.
        msg_type: 1 without time reversal, 2 grey (non-magnetic), 3 and 4 black and white (4: with anti-translations).
        space_group: Space group of the structure without moments, such as ``Im-3m (229)``.
    """

    bns_number: str
    uni_number: int
    msg_type: int
    space_group: str


@dataclass(frozen=True)
class MagneticOperations:
    """The operations of a magnetic space group, moments being axial vectors tied to the lattice.

    Attributes:
        space_group: That of the structure without moments, such as ``Im-3m (229)``.
        rotations: x → R x + t in fractional coordinates.
        translations: t.
        time_reversals: Whether the moments are turned round as well.
        magmoms: The moments nearest to those of the structure that the operations keep, in μB.
        tolerance: What tells them from their images under any other operation, in μB; 0 if nothing clearly does.
    """

    space_group: str
    rotations: Int[np.ndarray, "n_ops 3 3"]
    translations: Float[np.ndarray, "n_ops 3"]
    time_reversals: Bool[np.ndarray, " n_ops"]
    magmoms: Float[np.ndarray, "n_atoms 3"]
    tolerance: float


def magnetic_symmetry(
    atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"] | None = None, *, symprec: float = 0.01
) -> MagneticSymmetry | None:
    """Find the magnetic space group, moments taken as axial vectors tied to the lattice.

    Args:
        atoms: Structure, periodic in three directions.
        magmoms: Moments in μB; read from the structure if None.
        symprec: Tolerance of positions, in Å; that of moments is ten times as large, in μB.

    Returns:
        The symmetry, or None for a structure that is not a crystal or that spglib cannot analyse.
    """
    moments = get_magmoms(atoms) if magmoms is None else np.asarray(magmoms, dtype=float)
    cell, members = magnetic_primitive(atoms, moments, symprec=symprec)
    return symmetry_of_primitive(cell, moments[members], symprec=symprec)


def symmetry_of_primitive(
    cell: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"], *, symprec: float = 0.01
) -> MagneticSymmetry | None:
    """The same of the smallest cell that repeats atoms and moments.

    Args:
        cell: What `magnetic_primitive` gives.
        magmoms: Moments, in μB.
        symprec: As of `magnetic_symmetry`.

    Returns:
        As `magnetic_symmetry`.
    """
    if not cell.pbc.all() or len(cell) == 0 or not np.isfinite(magmoms).all():
        return None
    found = magnetic_operations(cell, magmoms, symprec=symprec, magmom_tol=10 * symprec)
    if found is None or not found.tolerance:
        return None
    dataset = call_spglib(
        "get_magnetic_symmetry_dataset",
        cell,
        found.magmoms.tolist(),
        symprec=symprec,
        mag_symprec=found.tolerance,
    )
    if dataset is None:
        return None
    group = ask_spglib("get_magnetic_spacegroup_type", dataset.uni_number)
    if group is None:
        return None
    return MagneticSymmetry(
        bns_number=group.bns_number,
        uni_number=int(dataset.uni_number),
        msg_type=int(dataset.msg_type),
        space_group=found.space_group,
    )


def magnetic_operations(
    atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"], *, symprec: float = 0.01, magmom_tol: float = 0.1
) -> MagneticOperations | None:
    """Find the operations that keep a crystal and its moments, with or without time reversal.

    Args:
        atoms: Crystal; its own moments do not matter.
        magmoms: Moments, in μB.
        symprec: Tolerance of positions, in Å.
        magmom_tol: How far a moment may be from the image of another one, in μB. Less is allowed where that would
            accept operations that form no group.

    Returns:
        The operations; None if spglib finds none of the structure alone.
    """
    found = call_spglib("get_symmetry_dataset", atoms, symprec=symprec)
    if found is None:
        return None
    rotations, translations = np.asarray(found.rotations, dtype=int), np.asarray(found.translations)
    try:
        images, _ = operation_images(atoms, rotations, translations, symprec)
    except StructureError:
        return None
    turns = axial_rotations(atoms.cell.array, rotations)
    reversals, chosen = np.nonzero(_group(moment_deviations(magmoms, turns, images), magmom_tol))
    exact = np.zeros_like(magmoms)
    moved = (1 - 2 * reversals)[:, None, None] * (magmoms @ turns[chosen].transpose(0, 2, 1))
    np.add.at(exact, images[chosen], moved / len(chosen))
    deviations = moment_deviations(exact, turns, images)
    kept = np.zeros(deviations.shape, dtype=bool)
    kept[reversals, chosen] = True
    within, beyond = (
        max(float(deviations[kept].max()), _SAME),
        float(deviations[~kept].min(initial=magmom_tol)),
    )
    return MagneticOperations(
        space_group=f"{found.international} ({found.number})",
        rotations=rotations[chosen],
        translations=translations[chosen],
        time_reversals=reversals.astype(bool),
        magmoms=exact,
        tolerance=float(np.sqrt(within * beyond)) if beyond > 4 * within else 0.0,
    )


def magnetic_primitive(
    atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"], *, symprec: float = 0.01
) -> tuple[Atoms, Int[np.ndarray, " n_primitive"]]:
    """The smallest cell that repeats atoms and moments, in the same orientation.

    Args:
        atoms: Crystal.
        magmoms: Moments, in μB.
        symprec: Tolerance of positions, in Å; that of moments is ten times as large, in μB.

    Returns:
        The cell without moments, and which atoms of the structure are in it.
    """
    everything = np.arange(len(atoms))
    found = call_spglib("get_symmetry", atoms, symprec=symprec) if atoms.pbc.all() else None
    if found is None:
        return atoms, everything
    pure = (np.asarray(found["rotations"]) == np.eye(3, dtype=int)).all(axis=(1, 2))
    rotations, shifts = np.asarray(found["rotations"])[pure], np.asarray(found["translations"])[pure]
    try:
        images, _ = operation_images(atoms, rotations, shifts, symprec)
    except StructureError:
        return atoms, everything
    shifts = shifts[_group(moment_deviations(magmoms, rotations.astype(float), images)[:1], 10 * symprec)[0]]
    if len(shifts) < 2:
        return atoms, everything
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    vectors = (shifts[:, None] + steps[None]).reshape(-1, 3) @ atoms.cell.array
    cell = _shortest_basis(vectors)
    if len(cell) < 3:  # a cell as thin as the tolerance
        return atoms, everything
    cell *= np.sign(np.linalg.det(cell))
    kept: list[int] = []
    for index in everything:
        offsets = (atoms.positions[kept] - atoms.positions[index]) @ np.linalg.inv(cell)
        distances = np.linalg.norm((offsets - np.rint(offsets)) @ cell, axis=1)
        if not (distances < 10 * symprec).any():
            kept.append(int(index))
    if len(kept) * len(shifts) != len(atoms):
        return atoms, everything
    primitive = Atoms(cell=cell, pbc=True)
    primitive += atoms[kept]
    return primitive, np.array(kept)


def _shortest_basis(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n_basis 3"]:
    """The shortest of some vectors that are independent within 0.1 Å, three at most."""
    basis: list[np.ndarray] = []
    for vector in vectors[np.argsort(np.linalg.norm(vectors, axis=1).round(6), kind="stable")]:
        if np.linalg.matrix_rank(np.array([*basis, vector]), tol=0.1) > len(basis):
            basis.append(vector)
        if len(basis) == 3:
            break
    return np.array(basis)


def moment_deviations(
    magmoms: Float[np.ndarray, "n_atoms 3"],
    turns: Float[np.ndarray, "n 3 3"],
    images: Int[np.ndarray, "n n_atoms"],
) -> Float[np.ndarray, "2 n"]:
    """How far operations take moments from those that are there.

    Args:
        magmoms: Moments, in μB.
        turns: How each operation turns axial vectors.
        images: Which atom each operation takes each atom to.

    Returns:
        The largest distance of each operation, without and with time reversal, in μB.
    """
    moved = magmoms @ turns.transpose(0, 2, 1)
    apart = [
        np.linalg.norm(magmoms[images] - sign * moved, axis=2).max(axis=1, initial=0.0) for sign in (1, -1)
    ]
    return np.array(apart)


def _group(deviations: Float[np.ndarray, "k n"], tolerance: float) -> Bool[np.ndarray, "k n"]:
    """Which operations count as symmetry: those within the largest tolerance that makes them a group.

    Of two operations that miss by t each, one after the other misses by 2 t at most. If none misses by between once and
    twice the tolerance, products of what is accepted are therefore accepted, too.
    """
    steps = np.unique(np.r_[0.0, deviations[deviations > _SAME]])
    limits = np.maximum(steps, _SAME)
    clear = np.r_[steps[1:], np.inf] > 2 * limits
    return deviations <= limits[clear & (limits <= tolerance)].max(initial=_SAME)

"""Names of magnetic orders (from `mmace_sim.graph.magnetic_order`), and magnetic space groups."""

import warnings
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.magnetic_order import (
    ANGLE_TOL,
    INDUCED_TOL,
    MOMENT_TOL,
    NET_TOL,
    MagneticOrder,
    classify_order,
)

__all__ = [
    "ANGLE_TOL",
    "INDUCED_TOL",
    "MOMENT_TOL",
    "NET_TOL",
    "MagneticOrder",
    "MagneticSymmetry",
    "classify_order",
    "magnetic_symmetry",
]


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
    if not atoms.pbc.all() or len(atoms) == 0:
        return None
    import spglib

    moments = get_magmoms(atoms) if magmoms is None else np.asarray(magmoms, dtype=float)
    lattice, positions, numbers, spins = (part.tolist() for part in _smallest_cell(atoms, moments, symprec))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = spglib.get_magnetic_symmetry_dataset(
                (lattice, positions, numbers, spins), symprec=symprec, mag_symprec=10 * symprec
            )
            plain = spglib.get_symmetry_dataset((lattice, positions, numbers), symprec=symprec)
        except Exception:
            return None
        if dataset is None or plain is None:
            return None
        group = spglib.get_magnetic_spacegroup_type(dataset.uni_number)
    if group is None:
        return None
    return MagneticSymmetry(
        bns_number=group.bns_number,
        uni_number=int(dataset.uni_number),
        msg_type=int(dataset.msg_type),
        space_group=f"{plain.international} ({plain.number})",
    )


def _smallest_cell(
    atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"], symprec: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cell, fractional positions, elements and moments of the smallest cell with the same moments.

    Of a supercell spglib finds only the operations that keep the supercell's own lattice, and after seconds.
    """
    import spglib

    cell, positions = atoms.cell.array, atoms.get_scaled_positions()
    whole = (cell, positions, atoms.numbers, magmoms)
    if len(atoms) < 2 or not np.isfinite(magmoms).all():
        return whole
    # alike to a hundredth of what counts as alike
    steps = np.round(magmoms / (0.1 * symprec)).astype(np.int64)
    _, kinds = np.unique(np.c_[atoms.numbers, steps], axis=0, return_inverse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = spglib.get_symmetry_dataset(
                (cell, positions, (kinds.ravel() + 1).tolist()), symprec=symprec
            )
        except Exception:
            return whole
    if found is None:
        return whole
    _, first = np.unique(found.mapping_to_primitive, return_index=True)
    primitive = np.asarray(found.primitive_lattice)
    places = np.linalg.solve(primitive.T, atoms.positions[first].T).T % 1.0
    return primitive, places, atoms.numbers[first], magmoms[first]

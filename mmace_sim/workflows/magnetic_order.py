"""Names of magnetic orders, and magnetic space groups."""

import warnings
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy.typing import ArrayLike

from mmace_sim.graph.atoms import get_magmoms

MOMENT_TOL: float = 0.05
"""Moments below this (μB) do not count as magnetic."""

INDUCED_TOL: float = 0.1
"""Moments below this fraction of the largest one are induced (Al in FeAl) and do not decide the order."""

ANGLE_TOL: float = 3.0
"""Moments within this angle of one axis (degrees) are collinear."""

NET_TOL: float = 0.02
"""A net moment below this fraction of Σ|m| is zero."""


class MagneticOrder(StrEnum):
    """How the moments of a structure are arranged."""

    FM = "FM"
    AFM = "AFM"
    FERRI = "ferri"
    NON_COLLINEAR = "non-collinear"
    NON_MAGNETIC = "non-magnetic"


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


def classify_order(magmoms: ArrayLike) -> MagneticOrder:
    """Name the order of a set of moments.

    Moments below `MOMENT_TOL` or `INDUCED_TOL` are left out. What remains is non-collinear if any moment is more than
    `ANGLE_TOL` off the common axis; else FM if all point the same way, AFM if the net moment vanishes (`NET_TOL`), and
    ferrimagnetic if it does not. Compensated ferrimagnets are therefore called AFM, and a non-collinear structure is
    "non-collinear" with and without a net moment.

    Args:
        magmoms: Moments of shape (n_atoms, 3), in μB.

    Returns:
        The order.
    """
    vectors = np.asarray(magmoms, dtype=float).reshape(-1, 3)
    lengths = np.linalg.norm(vectors, axis=1)
    if len(lengths) == 0 or lengths.max() < MOMENT_TOL:
        return MagneticOrder.NON_MAGNETIC
    counted = lengths >= max(MOMENT_TOL, INDUCED_TOL * lengths.max())
    vectors, lengths = vectors[counted], lengths[counted]
    _, _, axes = np.linalg.svd(vectors, full_matrices=False)
    along = vectors @ axes[0]
    if (np.abs(along) < np.cos(np.radians(ANGLE_TOL)) * lengths).any():
        return MagneticOrder.NON_COLLINEAR
    if (along > 0).all() or (along < 0).all():
        return MagneticOrder.FM
    if abs(along.sum()) < NET_TOL * lengths.sum():
        return MagneticOrder.AFM
    return MagneticOrder.FERRI


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
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = spglib.get_magnetic_symmetry_dataset(
                (*cell, moments), symprec=symprec, mag_symprec=10 * symprec
            )
            plain = spglib.get_symmetry_dataset(cell, symprec=symprec)
        except Exception:
            return None
        if dataset is None or plain is None:
            return None
        group = spglib.get_magnetic_spacegroup_type(dataset.uni_number)
    return MagneticSymmetry(
        bns_number=group.bns_number,
        uni_number=int(dataset.uni_number),
        msg_type=int(dataset.msg_type),
        space_group=f"{plain.international} ({plain.number})",
    )

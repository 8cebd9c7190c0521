"""Names of magnetic orders."""

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

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

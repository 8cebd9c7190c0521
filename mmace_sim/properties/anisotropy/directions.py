"""Directions on a sphere or in a plane, and rotations of moments to them."""

import numpy as np
from jaxtyping import Float
from scipy.integrate import lebedev_rule
from scipy.spatial.transform import Rotation

from mmace_sim.errors import StructureError, UnsupportedOptionError
from mmace_sim.structures.magnetic_order import NET_TOL, MagneticOrder, classify_order

_LEBEDEV_ORDERS: tuple[int, ...] = (*range(3, 33, 2), *range(35, 132, 6))
_COPLANAR = 0.02
"""Moments whose smallest singular value is below this part of the largest one lie in a plane."""


def sphere_directions(n: int, *, half: bool) -> Float[np.ndarray, "n_directions 3"]:
    """The smallest of Lebedev's grids with at least so many directions.

    Args:
        n: Least number of directions.
        half: Take one of each pair of opposite directions, where time reversal makes the other one equivalent.

    Returns:
        Unit vectors, z first, each as far as possible from those before, so that any first part covers the sphere.

    Raises:
        UnsupportedOptionError: If there is no grid so fine.

    References:
        Lebedev and Laikov, Dokl. Math. 59, 477 (1999), as in ``scipy.integrate.lebedev_rule``.
    """
    for order in _LEBEDEV_ORDERS:
        points = np.round(lebedev_rule(order)[0].T, 15)
        if half:
            upper = np.array([next(c for c in p[::-1] if abs(c) > 1e-12) > 0 for p in points])
            points = points[upper]
        if len(points) >= n:
            return _spread(points, half=half)
    raise UnsupportedOptionError(f"{n} directions: the finest grid has {len(points)}. Take fewer.")


def _spread(points: Float[np.ndarray, "n 3"], *, half: bool) -> Float[np.ndarray, "n 3"]:
    """Reorder points so that each is far from all before."""
    overlaps = points @ points.T
    overlaps = np.round(np.abs(overlaps) if half else overlaps, 9)
    chosen = [int(np.argmax(points[:, 2]))]
    nearest = overlaps[chosen[0]]
    for _ in range(len(points) - 1):
        open_points = np.where(np.isin(np.arange(len(points)), chosen), np.inf, nearest)
        chosen.append(int(np.argmin(open_points)))
        nearest = np.maximum(nearest, overlaps[chosen[-1]])
    return points[chosen]


def circle_directions(
    first: Float[np.ndarray, " 3"], second: Float[np.ndarray, " 3"], n: int, *, half: bool
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
    """Directions in the plane of two perpendicular unit vectors.

    Args:
        first: Direction of angle 0.
        second: Direction of angle 90°.
        n: Number of directions.
        half: Go half way round, where time reversal makes the rest equivalent.

    Returns:
        Angles in radians, and unit vectors.
    """
    angles = np.arange(n) * (np.pi if half else 2 * np.pi) / n
    return angles, np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second


def plane_axes(
    normal: Float[np.ndarray, " 3"], frame: Float[np.ndarray, "3 3"]
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """Two perpendicular unit vectors in a plane, the first as close as possible to an axis of a frame.

    Args:
        normal: Normal of the plane, of any length.
        frame: Axes as rows.
    """
    unit = normal / np.linalg.norm(normal)
    projected = frame - np.outer(frame @ unit, unit)
    first = projected[int(np.argmax(np.round(np.linalg.norm(projected, axis=1), 9)))]
    first = first / np.linalg.norm(first)
    return first, np.cross(unit, first)


def reference_axis(magmoms: Float[np.ndarray, "n_atoms 3"]) -> Float[np.ndarray, " 3"]:
    """The axis of an order, whose direction stands for that of all moments.

    Args:
        magmoms: Moments, in μB.

    Returns:
        A unit vector: the direction of the longest moment of a collinear order. Of a non-collinear one, that of the net
        moment if there is one, else the normal of the plane of the moments, else the longest moment.

    Raises:
        StructureError: If there are no moments.
    """
    order = classify_order(magmoms)
    if order is MagneticOrder.NON_MAGNETIC:
        raise StructureError(
            "there are no moments to turn. Give the structure moments (--initial-magmoms high-spin)."
        )
    lengths = np.linalg.norm(magmoms, axis=1)
    axis = magmoms[int(np.argmax(lengths))]
    if order is MagneticOrder.NON_COLLINEAR:
        net = magmoms.sum(axis=0)
        _, sizes, vectors = np.linalg.svd(magmoms, full_matrices=False)
        if np.linalg.norm(net) > NET_TOL * lengths.sum():
            axis = net
        elif len(sizes) < 3 or sizes[2] < _COPLANAR * sizes[0]:
            axis = np.cross(vectors[0], vectors[1])
    return axis / np.linalg.norm(axis)


def rotation_to(
    axis: Float[np.ndarray, " 3"], direction: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "3 3"]:
    """The rotation of least angle that turns one unit vector into another.

    Args:
        axis: From where.
        direction: To where; for the opposite direction the rotation is about any perpendicular axis.

    Returns:
        Matrix that acts on column vectors.
    """
    cosine = float(axis @ direction)
    if cosine < -1 + 1e-12:
        other = np.cross(axis, np.eye(3)[int(np.argmin(np.abs(axis)))])
        other = other / np.linalg.norm(other)
        return 2 * np.outer(other, other) - np.eye(3)
    normal = np.cross(axis, direction)
    length = np.linalg.norm(normal)
    if length < 1e-15:
        return np.eye(3)
    return Rotation.from_rotvec(normal / length * np.arctan2(length, cosine)).as_matrix()

"""Local minima of energies over c/a and volume."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class BainMinimum:
    """A local minimum of a map.

    Attributes:
        c_over_a: Ratio of the cell.
        volume: In Å³/atom.
        energy: In eV/atom.
        moment: Mean length of the moments, in μB.
        refined: Whether all this is computed at the relaxed cell. Otherwise it is interpolated, by a paraboloid through
            the lowest point of the grid and its eight neighbours, or that of the lowest point.
        grid_ratio: c/a of the lowest point of the grid.
        grid_volume: Its volume, in Å³/atom.
    """

    c_over_a: float
    volume: float
    energy: float
    moment: float
    refined: bool = False
    grid_ratio: float = float("nan")
    grid_volume: float = float("nan")


def find_minima(
    c_over_a: Float[np.ndarray, " n_ratios"],
    volumes: Float[np.ndarray, " n_volumes"],
    energies: Float[np.ndarray, "n_ratios n_volumes"],
    moments: Float[np.ndarray, "n_ratios n_volumes"],
) -> list[BainMinimum]:
    """Local minima inside of a map, by a paraboloid through the lowest point and its eight neighbours.

    Args:
        c_over_a: Ratios, equally spaced.
        volumes: In Å³/atom, equally spaced.
        energies: In eV/atom, NaN where unknown.
        moments: In μB.

    Returns:
        Minima in the order of their energies.
    """
    offsets = np.array(list(itertools.product((-1, 0, 1), repeat=2)))
    x, y = offsets.T
    design = np.stack([np.ones(9), x, y, x * x, x * y, y * y], axis=1)
    steps = np.array([c_over_a[1] - c_over_a[0], volumes[1] - volumes[0]])
    found = []
    for row, column in itertools.product(range(1, len(c_over_a) - 1), range(1, len(volumes) - 1)):
        around = energies[row - 1 : row + 2, column - 1 : column + 2].ravel()
        if not np.isfinite(around).all() or around.argmin() != 4:
            continue
        e, gx, gy, xx, xy, yy = np.linalg.lstsq(design, around, rcond=None)[0]
        hessian = np.array([[2 * xx, xy], [xy, 2 * yy]])
        shift = np.zeros(2)
        if np.linalg.eigvalsh(hessian)[0] > 0:
            shift = np.clip(np.linalg.solve(hessian, [-gx, -gy]), -1, 1)
        place = np.array([c_over_a[row], volumes[column]]) + shift * steps
        energy = e + np.array([gx, gy]) @ shift + 0.5 * shift @ hessian @ shift
        found.append(
            BainMinimum(
                c_over_a=float(place[0]),
                volume=float(place[1]),
                energy=float(energy),
                moment=float(moments[row, column]),
                grid_ratio=float(c_over_a[row]),
                grid_volume=float(volumes[column]),
            )
        )
    return sorted(found, key=lambda minimum: minimum.energy)

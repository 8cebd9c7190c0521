"""Minima of Bain maps by relaxing the cell from the lowest points of the grid."""

from dataclasses import replace

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.properties.bain.minima import BainMinimum
from mmace_sim.properties.relax.relaxation import StructureResult
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import PointResult, point_result

TETRAGONAL_TOL: float = 1e-3
"""Largest difference of two edges, relative, and largest shear of a cell that still counts as tetragonal."""


def refined(
    minimum: BainMinimum,
    point: PointResult,
    relaxed: StructureResult,
    axes: Float[np.ndarray, "3 3"],
    steps: tuple[float, float],
) -> BainMinimum | str:
    """A minimum of the map at the relaxed cell.

    Args:
        minimum: What was found on the grid.
        point: The lowest point of the grid there, where the relaxation began.
        relaxed: How it ended.
        axes: Unit vectors along the edges of the tetragonal cell, as rows.
        steps: Of the grid, in c/a and in Å³/atom.

    Returns:
        The minimum; or why it is not at the relaxed cell.
    """
    end = point_result(relaxed)
    if np.isnan(end.energy) or end.message:
        return f"{end.status}: {end.message}"
    stretch = axes @ (np.linalg.inv(point.atoms.cell.array) @ end.atoms.cell.array) @ axes.T
    a, b, c = np.diag(stretch)
    skew = np.abs(stretch - np.diag([a, b, c])).max()
    if abs(a - b) > TETRAGONAL_TOL or skew > TETRAGONAL_TOL:
        return "the cell does not stay tetragonal"
    ratio, volume = minimum.grid_ratio * c / np.sqrt(a * b), end.atoms.get_volume() / len(end.atoms)
    if abs(ratio - minimum.grid_ratio) > steps[0] or abs(volume - _volume(point.atoms)) > steps[1]:
        return f"the cell relaxes away, to c/a = {ratio:.3f} and {volume:.2f} Å³/atom"
    return replace(
        minimum,
        c_over_a=float(ratio),
        volume=float(volume),
        energy=end.energy / len(end.atoms),
        moment=float(np.linalg.norm(known(end.magmoms), axis=1).mean()),
        refined=True,
    )


def _volume(atoms: Atoms) -> float:
    return float(atoms.get_volume()) / len(atoms)

"""Energy maps over c/a and volume: the Bain path between bcc and fcc in several magnetic states, in one batch."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, override

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.engine.outcomes import StructureResult
from mmace_sim.errors import StructureError
from mmace_sim.graph.cells import check_crystal
from mmace_sim.properties.bain.declaration import BainSettings
from mmace_sim.properties.bain.minima import BainMinimum, find_minima
from mmace_sim.properties.eos.birch_murnaghan import EosStatus, fit_birch_murnaghan
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import (
    PointResult,
    converged,
    first_problem,
    point_result,
    pressures_gpa,
)
from mmace_sim.properties.states import StatePoints, StatesWorkflow, common_status

TETRAGONAL_TOL: float = 1e-3
"""Largest difference of two edges, relative, and largest shear of a cell that still counts as tetragonal."""

REFINED_STRESS_GPA: float = 1e-3
"""Largest stress of the cell at a minimum."""


@dataclass
class BainMap(StatePoints):
    """Energy over c/a (rows) and volume (columns) in one magnetic state; its base is `StatePoints`.

    Attributes:
        minima: Local minima in the order of their energies.
    """

    minima: list[BainMinimum] = field(default_factory=list)


@dataclass
class BainResult:
    """Maps of one structure.

    Attributes:
        atoms: The structure as it was given.
        c_over_a: Ratios of the cell, in ascending order.
        volumes: In Å³/atom, in ascending order.
        maps: One for each state.
    """

    atoms: Atoms
    c_over_a: Float[np.ndarray, " n_ratios"]
    volumes: Float[np.ndarray, " n_volumes"]
    maps: list[BainMap]

    @property
    def status(self) -> EosStatus:
        """CONVERGED if all maps are, else the first other status."""
        return common_status(self.maps)

    @property
    def lowest_energy(self) -> float:
        """Lowest minimum of all states, or the lowest point if there is none, in eV/atom; NaN if all failed."""
        minima = [minimum.energy for one in self.maps for minimum in one.minima]
        points = [float(np.nanmin(one.energies)) for one in self.maps if np.isfinite(one.energies).any()]
        return min(minima or points, default=float("nan"))


class BainPath(StatesWorkflow[BainSettings, BainMap, BainResult]):
    """Energy over c/a and volume: settings here, structures in :meth:`run`.

    Structures are crystals whose third cell vector is perpendicular to the others, which are equally long. A
    body-centred tetragonal cell is bcc at c/a = 1 and fcc at c/a = √2. Layered antiferromagnets fit into it (AFM) or
    into two of them (AFMD). As soon as the maps of a structure are complete, the cell is relaxed from each of their
    minima, which keeps its symmetry.

    Its settings are :class:`~mmace_sim.properties.bain.declaration.BainSettings`.
    """

    kind = BainSettings
    part = BainMap

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        super().set_up(model, **where)
        settings = self.settings
        self.c_over_a = np.linspace(settings.ratio_min, settings.ratio_max, settings.n_ratios)
        self.factors = np.linspace(settings.volume_min, settings.volume_max, settings.n_volumes)
        changed = {"relax_cell": True, "stress_tol": REFINED_STRESS_GPA}
        with_cell = self.relaxation.settings.model_copy(update=changed)
        where["relax_positions"] = settings.relax_positions
        self.refinement = Relaxation(self.relaxation.bare_model, with_cell, **where)

    @override
    def _check(self, atoms: Atoms) -> None:
        _tetragonal(atoms)

    @override
    def _cells(self, atoms: Atoms, state: Atoms) -> list[Float[np.ndarray, "3 3"]]:
        (base, height), axes, cells = _tetragonal(atoms), _axes(atoms), []
        for ratio, factor in itertools.product(self.c_over_a, self.factors):
            edge = (factor * base**2 * height / ratio) ** (1 / 3)
            stretch = np.diag([edge / base, edge / base, ratio * edge / height])
            cells.append(state.cell.array @ (axes.T @ stretch @ axes))
        return cells

    @override
    def _result(self, atoms: Atoms, states: list[BainMap]) -> BainResult:
        result = BainResult(atoms, self.c_over_a, self.factors * atoms.cell.volume / len(atoms), states)
        for one in states:
            one.energies, one.moments = (
                values.reshape(-1, len(self.factors)) for values in (one.energies, one.moments)
            )
            if np.isfinite(one.energies).any():
                self._find_minima(one, result.volumes)
        self._refine(result)
        return result

    def _refine(self, result: BainResult) -> None:
        """Relax the cell from the lowest point of every minimum; one that does not stay there is that point."""
        found = [(one, k) for one in result.maps for k in range(len(one.minima))]
        starts = [_grid_point(result, one, one.minima[k]) for one, k in found]
        ends: Iterable[StructureResult] = (
            self.refinement.run([point.atoms for point in starts]) if starts else []
        )
        steps = (float(np.diff(result.c_over_a)[0]), float(np.diff(result.volumes)[0]))
        for (one, k), point, end in zip(found, starts, ends, strict=True):
            minimum = one.minima[k]
            new = _refined(minimum, point, end, _axes(result.atoms), steps)
            if isinstance(new, str):
                one.message += (
                    f" The minimum at c/a = {minimum.grid_ratio:.3f} is a point of the grid: {new}."
                )
                new = replace(
                    minimum,
                    c_over_a=minimum.grid_ratio,
                    volume=minimum.grid_volume,
                    energy=point.energy / len(point.atoms),
                )
            one.minima[k] = new
        for one in result.maps:
            one.message = one.message.strip()
            one.minima.sort(key=lambda minimum: minimum.energy)

    def _find_minima(self, one: BainMap, volumes: Float[np.ndarray, " n_volumes"]) -> None:
        shape, good = one.energies.shape, converged(one.points)
        one.minima = find_minima(self.c_over_a, volumes, one.energies, one.moments)
        row, column = np.unravel_index(np.nanargmin(one.energies), shape)
        if row in (0, shape[0] - 1) or column in (0, shape[1] - 1):
            one.status = EosStatus.OUTSIDE
            one.message = (
                f"the lowest point is at the edge of the map (c/a {self.c_over_a[row]:.3f}, "
                f"{volumes[column]:.2f} Å³/atom). Widen the ranges."
            )
        elif not good.all():
            one.status = EosStatus.INCOMPLETE
            one.message = f"{np.sum(~good)} of {good.size} points are left out ({first_problem(one.points)})"
        else:
            one.status = EosStatus.CONVERGED


def _grid_point(result: BainResult, one: BainMap, minimum: BainMinimum) -> PointResult:
    """The point of the grid where a minimum was found."""
    row = int(np.argmin(np.abs(result.c_over_a - minimum.grid_ratio)))
    column = int(np.argmin(np.abs(result.volumes - minimum.grid_volume)))
    return one.points[row * len(result.volumes) + column]


def _refined(
    minimum: BainMinimum,
    point: PointResult,
    relaxed: StructureResult,
    axes: Float[np.ndarray, "3 3"],
    steps: tuple[float, float],
) -> BainMinimum | str:
    """A minimum of the grid at the cell that relaxed from its point; or why it is not there.

    The cell has unit vectors `axes` along its edges, the grid `steps` in c/a and in Å³/atom.
    """
    end = point_result(relaxed)
    if np.isnan(end.energy) or end.message:
        return f"{end.status}: {end.message}"
    stretch = axes @ (np.linalg.inv(point.atoms.cell.array) @ end.atoms.cell.array) @ axes.T
    a, b, c = np.diag(stretch)
    skew = np.abs(stretch - np.diag([a, b, c])).max()
    if abs(a - b) > TETRAGONAL_TOL or skew > TETRAGONAL_TOL:
        return "the cell does not stay tetragonal"
    start, volume = (atoms.get_volume() / len(atoms) for atoms in (point.atoms, end.atoms))
    ratio = minimum.grid_ratio * c / np.sqrt(a * b)
    if abs(ratio - minimum.grid_ratio) > steps[0] or abs(volume - start) > steps[1]:
        return f"the cell relaxes away, to c/a = {ratio:.3f} and {volume:.2f} Å³/atom"
    return replace(
        minimum,
        c_over_a=float(ratio),
        volume=float(volume),
        energy=end.energy / len(end.atoms),
        moment=float(np.linalg.norm(known(end.magmoms), axis=1).mean()),
        refined=True,
    )


def _tetragonal(atoms: Atoms) -> tuple[float, float]:
    """Base edge and height of a tetragonal cell, in Å."""
    check_crystal(atoms, "a Bain path needs")
    a, b, c = atoms.cell.lengths()
    angles = atoms.cell.angles()
    if abs(a - b) > TETRAGONAL_TOL * a or np.abs(angles - 90).max() > 0.1:
        raise StructureError(
            "a Bain path needs a tetragonal cell, two equal edges and a third one perpendicular to them; this one has "
            f"{a:.3f}, {b:.3f}, {c:.3f} Å and {angles[0]:.1f}, {angles[1]:.1f}, {angles[2]:.1f}°. Give the "
            "conventional cell."
        )
    return float(np.sqrt(a * b)), float(c)


def _axes(atoms: Atoms) -> Float[np.ndarray, "3 3"]:
    """Unit vectors along the edges of the cell, as rows."""
    return atoms.cell.array / atoms.cell.lengths()[:, None]


def lowest_along_path(one: BainMap) -> Float[np.ndarray, " n_ratios"]:
    """Energy at the best volume of each c/a, that of the equation of state.

    Where none describes the points, that of a parabola through the lowest volume and its neighbours.

    Args:
        one: Map of one state.

    Returns:
        In eV/atom; NaN where the best volume is at the edge.
    """
    path = np.full(len(one.energies), np.nan)
    points = np.array(one.points, dtype=object).reshape(one.energies.shape)
    for row, values in enumerate(one.energies):
        volumes = np.array([point.atoms.get_volume() / len(point.atoms) for point in points[row]])
        status, fit = fit_birch_murnaghan(volumes, values, one.moments[row], pressures_gpa(list(points[row])))
        if status is EosStatus.CONVERGED and fit is not None:
            path[row] = fit.energy
            continue
        k = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
        if 0 < k < len(values) - 1 and np.isfinite(values[k - 1 : k + 2]).all():
            left, middle, right = values[k - 1 : k + 2]
            path[row] = middle - (right - left) ** 2 / (8 * (left - 2 * middle + right))
    return path

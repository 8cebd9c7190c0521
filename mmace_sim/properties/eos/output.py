"""Equations of state as a run: entries of the summary, points, figures."""

from collections.abc import Sequence
from typing import override

from ase import Atoms

from mmace_sim.engine.computation import Computed, Entry, Told
from mmace_sim.engine.declaration import PLACE
from mmace_sim.engine.output import entry_head, finite_or_none, write_csv
from mmace_sim.engine.run import Run
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import write_extxyz
from mmace_sim.properties.eos.equation_of_state import EosCurve, EosResult, EquationOfState
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import PointResult
from mmace_sim.properties.states import StatesComputation
from mmace_sim.properties.written import draw_each, labelled

POINT_COLUMNS: tuple[str, ...] = (
    "name", "state", "volume", "energy", "moment", "pressure_gpa", "magnetic_order", "status",
)  # fmt: skip
"""Columns of ``curves.csv``: one line for each point."""

_LISTS = ("volume_range", "coefficients")


class EosComputation(StatesComputation[EosResult]):
    """Equations of state of the structures of a run."""

    workflow = EquationOfState
    result = EosResult

    @override
    def entry(self, item: LoadedStructure, result: EosResult) -> Entry:
        bad = [curve for curve in result.curves if curve.message]
        message = " ".join(f"State {curve.state}: {curve.message}" for curve in bad)
        zero = result.lowest.fits[0].energy if result.lowest else None
        item.notes += [f"state {curve.state}: {curve.note}" for curve in result.curves if curve.note]
        return entry_head(item, str(result.status), message) | {
            "states": [_state_entry(curve, zero) for curve in result.curves],
            "crossings": [vars(crossing) for crossing in result.crossings],
        }

    @override
    def stands_for(self, entry: Entry, result: EosResult) -> Told:
        return told_points(entry, entry["states"], [one.points for one in result.curves])

    @override
    def rows(self, entry: Entry) -> list[Entry]:
        return minimum_rows(entry)

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[EosResult]) -> list[str]:
        del entries
        rows = [
            {"name": item.name, "state": curve.state} | row
            for item, result in computed
            for curve in result.curves
            for row in _point_rows(curve)
        ]
        write_csv(run.folder / "curves.csv", POINT_COLUMNS, rows)
        images = [
            labelled(point.atoms, name=item.name, state=curve.state, status=str(point.status))
            for item, result in computed
            for curve in result.curves
            for point in curve.points
        ]
        write_extxyz(run.folder / "points.extxyz", images)
        names = ["curves.csv", "points.extxyz"]
        if self.settings.figures:
            from mmace_sim.properties.eos.plots import save_eos_figures

            names.append(draw_each(run, computed, save_eos_figures))
        return names


def _state_entry(curve: EosCurve, zero: float | None) -> Entry:
    return {
        "state": curve.state,
        "status": str(curve.status),
        "message": curve.message,
        "minima": [
            {key: finite_or_none(value) for key, value in vars(fit).items() if key not in _LISTS}
            | {name: list(getattr(fit, name)) for name in _LISTS}
            | {
                "energy_above_lowest": fit.energy - known(zero),
                "magnetic_order": curve.order_at(fit.volume),
            }
            for fit in curve.fits
        ],
        "jumps": [{"volumes": list(j.volumes), "moments": list(j.moments)} for j in curve.jumps],
        "points": _point_rows(curve),
    }


def _point_rows(curve: EosCurve) -> list[Entry]:
    columns = (curve.volumes, curve.energies, curve.moments, curve.pressures_gpa, curve.orders, curve.points)
    return [
        {
            "volume": float(volume),
            "energy": finite_or_none(energy),
            "moment": finite_or_none(moment),
            "pressure_gpa": finite_or_none(pressure),
            "magnetic_order": order,
            "status": str(point.status),
        }
        for volume, energy, moment, pressure, order, point in zip(*columns, strict=False)
    ]


def minimum_rows(entry: Entry, states: str = "states") -> list[Entry]:
    """Lines of the table: one for each minimum, or one that says why there is none.

    Args:
        entry: Of a structure.
        states: Its key that holds the states with their minima.

    Returns:
        One dictionary for each line.
    """
    head = {key: entry[key] for key in ("name", "file", "index", "formula", "model")}
    if states not in entry:
        return [head | {"status": entry["status"], "message": entry["message"]}]
    return [
        head | {key: state.get(key) for key in ("state", "status", "message", *PLACE)} | minimum
        for state in entry[states]
        for minimum in [{"minimum": k} | m for k, m in enumerate(state["minima"], start=1)] or [{}]
    ]


def told_points(entry: Entry, parts: Sequence[Entry], points: Sequence[Sequence[PointResult]]) -> Told:
    """The structures that each curve of an entry stands for, as `Computation.stands_for` gives them.

    Args:
        entry: Of a structure, which stands for all of them.
        parts: Its curves.
        points: Points of each curve, which may have failed.
    """
    images = [[_with_magforces(point) for point in some if point.magforces is not None] for some in points]
    return [*zip(parts, images, strict=True), (entry, [image for some in images for image in some])]


def _with_magforces(point: PointResult) -> Atoms:
    atoms = labelled(point.atoms)
    atoms.arrays["magforces"] = known(point.magforces)
    return atoms

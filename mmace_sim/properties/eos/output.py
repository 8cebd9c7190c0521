"""Equations of state as a run: entries of the summary, points, figures."""

from collections.abc import Sequence
from typing import override

from mmace_sim.engine.computation import Computed, Entry
from mmace_sim.engine.output import finite_or_none
from mmace_sim.engine.run import Run
from mmace_sim.io.writing import write_extxyz
from mmace_sim.properties.eos.equation_of_state import EosCurve, EosResult, EquationOfState
from mmace_sim.properties.eos.plots import FIGURES
from mmace_sim.properties.results import known
from mmace_sim.properties.states import StatesComputation
from mmace_sim.properties.written import labelled

_LISTS = ("volume_range", "coefficients")


class EosComputation(StatesComputation[EosResult]):
    """Equations of state of the structures of a run."""

    workflow = EquationOfState
    result = EosResult
    figures = FIGURES
    point_columns = ("volume", "energy", "moment", "pressure_gpa", "magnetic_order", "status")

    @override
    def _states(self, result: EosResult) -> Sequence[EosCurve]:
        return result.curves

    @override
    def _told(self, result: EosResult) -> Entry:
        zero = result.lowest.fits[0].energy if result.lowest else None
        return {
            "states": [_state_entry(curve, zero) for curve in result.curves],
            "crossings": [vars(crossing) for crossing in result.crossings],
        }

    @override
    def _point_rows(self, result: EosResult, state: EosCurve) -> list[Entry]:
        return _point_rows(state)

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[EosResult]) -> list[str]:
        images = [
            labelled(point.atoms, name=item.name, state=curve.state, status=str(point.status))
            for item, result in computed
            for curve in result.curves
            for point in curve.points
        ]
        write_extxyz(run.folder / "points.extxyz", images)
        curves, *figures = super().write(run, entries, computed)
        return [curves, "points.extxyz", *figures]


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

"""What sampling at finite temperature writes: entry of the summary, table of points, figures."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mmace_sim.engine.output import entry_head, finite_or_none, write_csv
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.properties.curie.estimators import DISORDERED_BINDER, ORDERED_BINDER, power_law
from mmace_sim.properties.curie.temperatures import CurieResult
from mmace_sim.properties.exchange import CONVENTION
from mmace_sim.sampling.statistics import Point, Value

CURIE_UNITS: dict[str, str] = {
    "convention": CONVENTION,
    "temperature": "K",
    "n_spins": "number of spins of each size; in summary.csv that of the largest",
    "spin": "an atom with a moment of its own in the given order; only these count, with both methods",
    "energy": "eV per spin (heisenberg: without E0)",
    "order": "|sum_i s_i e_i|/n, unit vectors, s = +1, -1 of the given order; 0 to 1",
    "magnetization": "μB per spin",
    "length": "μB, mean |m| of magnetic atoms (direct)",
    "volume": "Å³ per atom (direct)",
    "heat_capacity": "k_B per spin, n var(E/n)/(kT)²: of what is sampled, without kinetic energy",
    "susceptibility": "1/eV per spin, n var(order)/kT: of unit vectors, connected, of the length of the order",
    "binder": "U = 1 - <o⁴>/(3 <o²>²); 2/3 in the ordered, 4/9 in the disordered phase",
    "autocorrelation": "sweeps (heisenberg: one heat bath and its over-relaxation; direct: one trajectory or sweep)",
    "drift": "difference of the halves of a chain, standard errors",
    "error": "one standard error, same unit",
    "exponent": "β of M0 (1 - T/T_C)^β",
    "curie_temperature_quantum": "K, --quantum: curie_temperature times quantum_factor; all else is of classical spins",
    "quantum_factor": "(S+1)/S, S = |m|/2; several kinds of spins: the ratio of mean-field temperatures",
}
"""Unit and meaning of each quantity in the summary."""

CURIE_COLUMNS: tuple[str, ...] = (
    "name", "file", "index", "formula", "method", "curie_temperature", "curie_temperature_error", "estimator",
    "mean_field_temperature", "n_spins", "status", "message",
)  # fmt: skip
"""Columns of ``summary.csv``."""

_KEYS = (
    "energy", "order", "magnetization", "heat_capacity", "susceptibility", "binder", "length", "volume", "acceptance"
)  # fmt: skip
_LABELS = {
    "order": "order |Σ s e|/n",
    "susceptibility": "susceptibility (1/eV per spin)",
    "heat_capacity": "heat capacity (k_B per spin)",
    "binder": "Binder cumulant",
}


def curie_entry(item: LoadedStructure, result: CurieResult) -> dict[str, Any]:
    """The entry of one structure in ``summary.json``.

    Args:
        item: What was read.
        result: Its result.

    Returns:
        Plain JSON values in the units of `CURIE_UNITS`.
    """
    found = result.temperature
    name, value = found.best or (None, None)
    n_spins = [row[0].n_spins for row in result.points]
    return entry_head(item, str(result.status), result.message) | {
        "method": result.method,
        "convention": CONVENTION,
        "curie_temperature": None if value is None else value.mean,
        "curie_temperature_error": None if value is None else value.error,
        "estimator": name,
        "curie_temperature_quantum": _times(value, result.quantum_factor, "mean"),
        "curie_temperature_quantum_error": _times(value, result.quantum_factor, "error"),
        "quantum_factor": result.quantum_factor,
        "n_spins": n_spins,
        "n_sweeps": result.n_sweeps,
        "mean_field_temperature": result.mean_field,
        "binder_crossings": [
            _value(v) | {"n_spins": list(pair)}
            for v, pair in zip(found.crossings, pairwise(n_spins), strict=True)
        ],
        "susceptibility_peaks": [
            _value(v) | {"n_spins": n} for v, n in zip(found.peaks, n_spins, strict=True)
        ],
        "power_law": _value(found.power_law) | {"n_spins": n_spins[-1] if n_spins else None},
        "exponent": _value(found.exponent),
        "points": [point_row(point) for row in result.points for point in row],
    }


def _times(value: Value | None, factor: float | None, what: str) -> float | None:
    return None if value is None or factor is None else factor * getattr(value, what)


def _value(value: Value | None) -> dict[str, float | None]:
    return {"mean": None, "error": None} if value is None else {"mean": value.mean, "error": value.error}


def point_row(point: Point) -> dict[str, Any]:
    """One size at one temperature as a line of a table.

    Args:
        point: Its observables.

    Returns:
        Values and errors in the units of `CURIE_UNITS`.
    """
    row: dict[str, Any] = {"temperature": point.temperature, "n_spins": point.n_spins}
    for key in _KEYS:
        if key in point.values:
            row |= {
                key: finite_or_none(point.values[key].mean),
                f"{key}_error": finite_or_none(point.values[key].error),
            }
    tail = {"autocorrelation": point.autocorrelation, "drift": finite_or_none(point.drift)}
    return row | tail | {"n_samples": point.n_samples, "status": str(point.status)}


def write_curie(result: CurieResult, folder: Path, *, figures: bool) -> None:
    """Write the table and the figures of one crystal.

    Args:
        result: Its result; nothing is written if it failed.
        folder: Folder of the crystal.
        figures: Draw M, susceptibility, heat capacity and cumulant against temperature.

    Raises:
        OutputError: If a file cannot be written.
    """
    if not result.points:
        return
    folder.mkdir(exist_ok=True)
    rows = [point_row(point) for row in result.points for point in row]
    write_csv(folder / "points.csv", tuple(rows[0]), rows)
    for key in _LABELS if figures else ():
        save_figure(curie_figure(result, key), folder / key)


def curie_figure(result: CurieResult, key: str) -> Any:
    """An observable against temperature, one colour for each size.

    Args:
        result: Result of one crystal.
        key: "order", "susceptibility", "heat_capacity" or "binder".

    Returns:
        The figure.
    """
    figure, axes = new_figure()
    for row, color, marker in zip(result.points, COLORS * 3, MARKERS * 3, strict=False):
        t = [point.temperature for point in row]
        mean, error = ([getattr(point.values[key], what) for point in row] for what in ("mean", "error"))
        axes.errorbar(
            t,
            mean,
            error,
            color=color,
            marker=marker,
            markersize=2.5,
            linewidth=0.8,
            label=f"{row[0].n_spins} spins",
        )
    found = result.temperature
    if key == "order" and found.power_law is not None:
        _draw_law(axes, result)
    if key == "binder":
        for level in (ORDERED_BINDER, DISORDERED_BINDER):
            axes.axhline(level, color=REFERENCE, linewidth=0.6, linestyle=":")
    if found.best is not None:
        axes.axvline(found.best[1].mean, color=REFERENCE, linewidth=0.8, linestyle="--", label="$T_C$")
    axes.set_xlabel("temperature (K)")
    axes.set_ylabel(_LABELS[key].replace("k_B", "$k_B$"))
    add_legend(axes)
    return figure


def _draw_law(axes: Any, result: CurieResult) -> None:
    """The fit M₀ (1 − T/T_C)^β through the points that it belongs to."""
    law, exponent = result.temperature.power_law.mean, result.temperature.exponent.mean
    row = [p for p in result.points[-1] if 0.6 * law <= p.temperature <= 0.97 * law]
    t = np.array([point.temperature for point in row])
    mean = np.array([point.values["order"].mean for point in row])
    shape = power_law(t, 1.0, law, exponent)
    grid = np.linspace(0.6 * law, law, 200)
    scale = float((mean @ shape) / (shape @ shape)) if len(t) else 1.0
    label = rf"$(1 - T/T_C)^{{{exponent:.2f}}}$"
    axes.plot(grid, power_law(grid, scale, law, exponent), color=COLORS[3], linewidth=1.0, label=label)

"""One run of ``mmace-sim eos``: read, compute, write, show."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.config import RunConfig
from mmace_sim.cli.runs import PropertyRun, open_run, progress
from mmace_sim.cli.tables import MAX_ROWS, fixed, print_run
from mmace_sim.engine.output import entry_head, finite_or_none, write_csv
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import file_names, write_extxyz
from mmace_sim.properties.eos import EosCurve, EosResult, EquationOfState
from mmace_sim.structures.magnetic_states import check_state

UNITS: dict[str, str] = {
    "volume": "Å³/atom",
    "energy": "eV/atom",
    "energy_above_lowest": "eV/atom, above the lowest minimum of the same structure",
    "bulk_modulus_gpa": "GPa",
    "bulk_modulus_derivative": "1",
    "moment": "μB, mean length of all moments",
    "bulk_modulus_error_gpa": "GPa, change with the next order of the equation",
    "rms_error": "eV/atom",
    "residual": "1, what the fit leaves of energies and pressures, relative to their range in the window",
    "volume_range": "Å³/atom, window of the fit",
    "order, n_points": "1, of the fit",
    "coefficients": "eV/atom, of E = Σ c_k f^k, f = [(V₀/V)^(2/3) − 1]/2",
    "pressure_gpa": "GPa, positive under compression",
}
"""Unit of each quantity in the summary and in ``curves.csv``."""

COLUMNS: tuple[str, ...] = (
    "name", "file", "index", "formula", "state", "minimum", "status", "volume", "energy", "energy_above_lowest",
    "bulk_modulus_gpa", "bulk_modulus_error_gpa", "bulk_modulus_derivative", "moment", "magnetic_order",
    "rms_error", "order", "n_points", "residual", "message",
)  # fmt: skip
"""Columns of ``summary.csv``: one line for each minimum of each state."""

_LISTS = ("volume_range", "coefficients")

POINT_COLUMNS: tuple[str, ...] = (
    "name", "state", "volume", "energy", "moment", "pressure_gpa", "magnetic_order", "status",
)  # fmt: skip
"""Columns of ``curves.csv``: one line for each point."""


def split_states(value: Any) -> Any:
    """Magnetic states from ``fm,afm,nm`` or a list.

    Args:
        value: What the user gave.

    Returns:
        List of names that exist.

    Raises:
        ConfigError: If one does not exist.
    """
    names = value.split(",") if isinstance(value, str) else value
    return [check_state(str(name).strip()) for name in names] if isinstance(names, list) else names


class EosConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim eos``."""

    output: str = "eos"
    """Folder of the run."""
    states: list[str] = Field(default=["file"], min_length=1)
    """Magnetic states: file, fm, fm-ls, afm, afmd, nm, random:SEED."""
    magmoms: Literal["relaxed", "fixed"] = "relaxed"
    """Moments follow the volume, or stay as they are in the state."""
    relax_positions: bool = False
    """Relax the atoms within the cell at each volume."""
    volume_min: float = Field(default=0.88, gt=0)
    """Smallest volume, relative to that of the structure."""
    volume_max: float = Field(default=1.12, gt=0)
    """Largest volume, relative to that of the structure."""
    n_volumes: int = Field(default=13, ge=2)
    """Number of volumes."""
    fmax: float = Field(default=0.005, gt=0)
    """Largest force if atoms relax, in eV/Å."""
    magforce_tol: float = Field(default=0.0001, gt=0)
    """Largest magnetic force of relaxed moments, in eV/μB."""
    max_steps: int = Field(default=500, ge=0)
    """Largest number of steps of a point."""
    collinear: bool = False
    """Keep each moment along its initial axis."""
    figures: bool = True
    """Draw the curves of each structure."""

    _split = field_validator("states", mode="before")(split_states)


def run_eos(config: EosConfig, *, force: bool, quiet: bool) -> int:
    """Compute the equations of state of everything that a configuration names.

    Args:
        config: The merged configuration.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0, or 3 if a structure failed or has no minimum in the range.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    with open_run("eos", config, force=force) as run:
        results = run.compute(lambda part: _compute(part, config, quiet=quiet))
        code, rows, entries = run.conclude(
            results,
            eos_entry,
            minimum_rows,
            partial(_write, run.folder, config),
            columns=COLUMNS,
            units=UNITS,
        )
    if not quiet:
        print_run(_table(rows[:MAX_ROWS]), entries, run.folder, run.written)
    return code


def _compute(run: PropertyRun, config: EosConfig, *, quiet: bool) -> list[EosResult]:
    """Equations of state of the structures of one model."""
    workflow = EquationOfState(
        run.model,
        states=config.states,
        magmoms=config.magmoms,
        relax_positions=config.relax_positions,
        volume_range=(config.volume_min, config.volume_max),
        n_volumes=config.n_volumes,
        fmax=config.fmax,
        magforce_tol=config.magforce_tol,
        max_steps=config.max_steps,
        collinear=config.collinear,
        max_batch_atoms=config.max_batch_atoms,
    )
    with progress("Computing", None, "points", quiet=quiet) as advance:
        return workflow.run(
            [item.atoms for item in run.structures],
            on_finished=lambda _, total: advance(1, total=total),
        )


def eos_entry(item: LoadedStructure, result: EosResult) -> dict[str, Any]:
    """The entry of one structure in ``summary.json``.

    Args:
        item: What was read.
        result: Its curves.

    Returns:
        Plain JSON values in the units of `UNITS`.
    """
    bad = [curve for curve in result.curves if curve.message]
    message = " ".join(f"State {curve.state}: {curve.message}" for curve in bad)
    zero = result.lowest.fits[0].energy if result.lowest else None
    notes = [f"state {curve.state}: {curve.note}" for curve in result.curves if curve.note]
    item.notes += notes
    return entry_head(item, str(result.status), message) | {
        "states": [_state_entry(curve, zero) for curve in result.curves],
        "crossings": [vars(crossing) for crossing in result.crossings],
    }


def _state_entry(curve: EosCurve, zero: float | None) -> dict[str, Any]:
    return {
        "state": curve.state,
        "status": str(curve.status),
        "message": curve.message,
        "minima": [
            {key: finite_or_none(value) for key, value in vars(fit).items() if key not in _LISTS}
            | {name: list(getattr(fit, name)) for name in _LISTS}
            | {
                "energy_above_lowest": fit.energy - zero,
                "magnetic_order": curve.order_at(fit.volume),
            }
            for fit in curve.fits
        ],
        "jumps": [{"volumes": list(j.volumes), "moments": list(j.moments)} for j in curve.jumps],
        "points": _point_rows(curve),
    }


def _point_rows(curve: EosCurve) -> list[dict[str, Any]]:
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


def minimum_rows(entry: dict[str, Any], states: str = "states") -> list[dict[str, Any]]:
    """Lines of the table: one for each minimum, or one that says why there is none.

    Args:
        entry: From `eos_entry`, or of a structure that failed.
        states: Its key that holds the states with their minima.

    Returns:
        One dictionary for each line.
    """
    head = {key: entry[key] for key in ("name", "file", "index", "formula")}
    if states not in entry:
        return [head | {"status": entry["status"], "message": entry["message"]}]
    return [
        head | {"state": state["state"], "status": state["status"], "message": state["message"]} | minimum
        for state in entry[states]
        for minimum in [{"minimum": k} | m for k, m in enumerate(state["minima"], start=1)] or [{}]
    ]


def _write(folder: Path, config: EosConfig, computed: list[tuple[LoadedStructure, EosResult]]) -> list[str]:
    """Write points and figures; returns their names."""
    rows = [
        {"name": item.name, "state": curve.state} | row
        for item, result in computed
        for curve in result.curves
        for row in _point_rows(curve)
    ]
    write_csv(folder / "curves.csv", POINT_COLUMNS, rows)
    images = []
    for item, result in computed:
        for curve in result.curves:
            for point in curve.points:
                image = point.atoms.copy()
                image.calc = point.atoms.calc
                image.info |= {"name": item.name, "state": curve.state, "status": str(point.status)}
                images.append(image)
    write_extxyz(folder / "points.extxyz", images)
    names = ["curves.csv", "points.extxyz"]
    if not config.figures:
        return names
    from mmace_sim.properties.eos.plots import save_eos_figures

    (folder / "figures").mkdir(exist_ok=True)
    stems = file_names([item.name for item, _ in computed])
    for stem, (_, result) in zip(stems, computed, strict=True):
        save_eos_figures(result, folder / "figures" / stem)
    return [*names, "figures/"]


def _table(rows: list[dict[str, Any]]) -> Table:
    """One line for each minimum."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in (
        "file",
        "state",
        "V₀\nÅ³/atom",
        "E₀\neV/atom",
        "ΔE₀\nmeV/atom",
        "B₀\nGPa",
        "B₀′",
        "|m|\nμB",
    ):
        table.add_column(
            heading, justify="left" if heading in ("file", "state") else "right", overflow="fold"
        )
    table.add_column("order", overflow="fold")
    table.add_column("status", overflow="fold")
    for row in rows:
        above = row.get("energy_above_lowest")
        cells = [
            row["name"],
            row.get("state") or "",
            fixed(row.get("volume"), "{:.3f}"),
            fixed(row.get("energy"), "{:.4f}"),
            fixed(None if above is None else 1000 * above, "{:.1f}"),
            fixed(row.get("bulk_modulus_gpa"), "{:.1f}"),
            fixed(row.get("bulk_modulus_derivative"), "{:.2f}"),
            fixed(row.get("moment"), "{:.2f}"),
            row.get("magnetic_order") or "–",
            row["status"].replace("_", " "),
        ]
        table.add_row(*[Text(cell) for cell in cells], style="" if row["status"] == "converged" else "red")
    return table

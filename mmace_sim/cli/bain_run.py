"""One run of ``mmace-sim bain``: build or read, compute, write, show."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ase.build import bulk
from ase.data import atomic_numbers, chemical_symbols, reference_states
from pydantic import Field, field_validator
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.config import RunConfig
from mmace_sim.cli.runs import PropertyRun, open_run, progress
from mmace_sim.cli.tables import MAX_ROWS, print_run
from mmace_sim.engine.declaration import fixed
from mmace_sim.engine.output import entry_head, finite_or_none, write_csv
from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import file_names
from mmace_sim.properties.bain import BainMap, BainPath, BainResult, lowest_along_path
from mmace_sim.properties.eos.output import minimum_rows
from mmace_sim.structures.initial_moments import high_spin_lengths
from mmace_sim.structures.magnetic_states import check_state
from mmace_sim.structures.moment_range import largest_moments

UNITS: dict[str, str] = {
    "c_over_a": "1, of the cell",
    "volume": "Å³/atom",
    "energy": "eV/atom",
    "energy_above_lowest": "eV/atom, above the lowest minimum of the same structure",
    "moment": "μB, mean length of all moments",
    "refined": "whether the cell of a minimum is relaxed",
    "grid_ratio, grid_volume": "1 and Å³/atom, nearest point of the map",
    "path": "eV/atom, energy at the best volume of each c/a",
}
"""Unit of each quantity in the summary and in ``curves.csv``."""

COLUMNS: tuple[str, ...] = (
    "name", "file", "index", "formula", "state", "minimum", "status", "c_over_a", "volume", "energy",
    "energy_above_lowest", "moment", "refined", "message",
)  # fmt: skip
"""Columns of ``summary.csv``: one line for each minimum of each state."""

POINT_COLUMNS: tuple[str, ...] = ("name", "state", "c_over_a", "volume", "energy", "moment", "status")
"""Columns of ``curves.csv``: one line for each point."""


class BainConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim bain``."""

    output: str = "bain"
    """Folder of the run."""
    element: str | None = None
    """Element of the cell that is built if no paths are given; None: that of a model with a single one."""
    states: list[str] = Field(default=["fm", "afm", "afmd", "nm"], min_length=1)
    """Magnetic states: fm, fm-ls, afm, afmd, nm, file, random:SEED."""
    magmoms: Literal["relaxed", "fixed"] = "relaxed"
    """Moments follow the cell, or stay as they are in the state."""
    ratio_min: float = Field(default=0.85, gt=0)
    """Smallest c/a."""
    ratio_max: float = Field(default=1.65, gt=0)
    """Largest c/a."""
    n_ratios: int = Field(default=17, ge=3)
    """Number of c/a."""
    volume_min: float = Field(default=0.84, gt=0)
    """Smallest volume, relative to that of the structure."""
    volume_max: float = Field(default=1.12, gt=0)
    """Largest volume, relative to that of the structure."""
    n_volumes: int = Field(default=9, ge=3)
    """Number of volumes."""
    magforce_tol: float = Field(default=0.0001, gt=0)
    """Largest magnetic force of relaxed moments, in eV/μB."""
    max_steps: int = Field(default=500, ge=0)
    """Largest number of steps of a point."""
    collinear: bool = False
    """Keep each moment along its initial axis."""
    figures: bool = True
    """Draw the maps of each structure."""

    _split = field_validator("states")(lambda value: [check_state(v) for v in value])


def run_bain(config: BainConfig, *, force: bool, quiet: bool) -> int:
    """Compute the maps of everything that a configuration names.

    Args:
        config: The merged configuration.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0, or 3 if a structure failed or its lowest point is at the edge of the map.

    Raises:
        ConfigError: If there are no structures and it is not clear which element to build.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    if config.paths and config.element:
        raise ConfigError("--element builds a structure, but files are given too; use one of them.")
    build = None if config.paths else element_builder(config.element)
    with open_run("bain", config, force=force, build=build) as run:
        results = run.compute(lambda part: _compute(part, config, quiet=quiet))
        code, rows, entries = run.conclude(
            results,
            bain_entry,
            lambda entry: minimum_rows(entry, "maps"),
            partial(_write, run.folder, config),
            columns=COLUMNS,
            units=UNITS,
        )
    if not quiet:
        print_run(_table(rows[:MAX_ROWS]), entries, run.folder, run.written)
    return code


def _compute(run: PropertyRun, config: BainConfig, *, quiet: bool) -> list[BainResult]:
    """Maps of the structures of one model."""
    workflow = BainPath(
        run.model,
        states=config.states,
        magmoms=config.magmoms,
        c_over_a=(config.ratio_min, config.ratio_max),
        n_ratios=config.n_ratios,
        volume_range=(config.volume_min, config.volume_max),
        n_volumes=config.n_volumes,
        magforce_tol=config.magforce_tol,
        max_steps=config.max_steps,
        collinear=config.collinear,
        max_batch_atoms=config.max_batch_atoms,
    )
    with progress("Computing", None, "points", quiet=quiet) as advance:
        return workflow.run(
            [item.atoms for item in run.structures],
            on_finished=lambda _, total: advance(total=total),
        )


def element_builder(symbol: str | None) -> Callable[[Any], list[LoadedStructure]]:
    """What builds the body-centred cell of an element once the model is known.

    Args:
        symbol: Chemical symbol; None takes the only element of the model.

    Returns:
        A function of the model. It raises ConfigError if the element is unclear, or unknown to the model.
    """

    def build(model: Any) -> list[LoadedStructure]:
        known = [chemical_symbols[number] for number in model.elements]
        name = symbol or (known[0] if len(known) == 1 else None)
        if name is None or name not in known:
            got = "no structures and no element" if name is None else f"element {name!r}"
            raise ConfigError(
                f"got {got}; name files, or one of the model's elements: --element {'|'.join(known)}."
            )
        atoms = bulk(name, "bcc", a=(2 * _known_volume(name)) ** (1 / 3), cubic=True)
        set_magmoms(atoms, high_spin_lengths(atoms, largest_moments(model)))
        return [LoadedStructure(f"element {name}", 0, name, atoms)]

    return build


def _known_volume(symbol: str) -> float:
    """Volume of the known crystal of an element, in Å³/atom."""
    state = reference_states[atomic_numbers[symbol]] or {}
    if state.get("symmetry") in ("bcc", "fcc", "hcp"):
        crystal = bulk(symbol)
        return float(crystal.cell.volume) / len(crystal)
    raise ConfigError(
        f"{symbol} is neither bcc, fcc nor hcp, so that the volume of its cell is not known; name a file with a "
        "tetragonal cell."
    )


def bain_entry(item: LoadedStructure, result: BainResult) -> dict[str, Any]:
    """The entry of one structure in ``summary.json``.

    Args:
        item: What was read.
        result: Its maps.

    Returns:
        Plain JSON values in the units of `UNITS`.
    """
    message = " ".join(f"State {one.state}: {one.message}" for one in result.maps if one.message)
    item.notes += [f"state {one.state}: {one.note}" for one in result.maps if one.note]
    return entry_head(item, str(result.status), message) | {
        "c_over_a": result.c_over_a.tolist(),
        "volumes": result.volumes.tolist(),
        "maps": [_map_entry(one, result.lowest_energy) for one in result.maps],
    }


def _map_entry(one: BainMap, zero: float) -> dict[str, Any]:
    return {
        "state": one.state,
        "status": str(one.status),
        "message": one.message,
        "minima": [vars(minimum) | {"energy_above_lowest": minimum.energy - zero} for minimum in one.minima],
        "path": [finite_or_none(value) for value in lowest_along_path(one)],
        "energies": [[finite_or_none(value) for value in row] for row in one.energies],
        "moments": [[finite_or_none(value) for value in row] for row in one.moments],
    }


def _point_rows(name: str, result: BainResult, one: BainMap) -> Iterator[dict[str, Any]]:
    grid = itertools.product(result.c_over_a, result.volumes)
    columns = (grid, one.energies.ravel(), one.moments.ravel(), one.points)
    for (ratio, volume), energy, moment, point in zip(*columns, strict=False):
        yield {
            "name": name,
            "state": one.state,
            "c_over_a": float(ratio),
            "volume": float(volume),
            "energy": finite_or_none(energy),
            "moment": finite_or_none(moment),
            "status": str(point.status),
        }


def _write(folder: Path, config: BainConfig, computed: list[tuple[LoadedStructure, BainResult]]) -> list[str]:
    """Write points and figures; returns their names."""
    rows = [
        row for item, result in computed for one in result.maps for row in _point_rows(item.name, result, one)
    ]
    write_csv(folder / "curves.csv", POINT_COLUMNS, rows)
    if not config.figures:
        return ["curves.csv"]
    from mmace_sim.properties.bain.plots import save_bain_figures

    (folder / "figures").mkdir(exist_ok=True)
    for stem, (_, result) in zip(file_names([item.name for item, _ in computed]), computed, strict=True):
        save_bain_figures(result, folder / "figures" / stem)
    return ["curves.csv", "figures/"]


def _table(rows: list[dict[str, Any]]) -> Table:
    """One line for each minimum."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("file", "state", "c/a", "V\nÅ³/atom", "E\neV/atom", "ΔE\nmeV/atom", "|m|\nμB"):
        table.add_column(
            heading, justify="left" if heading in ("file", "state") else "right", overflow="fold"
        )
    table.add_column("status", overflow="fold")
    for row in rows:
        above = row.get("energy_above_lowest")
        cells = [
            row["name"],
            row.get("state") or "",
            fixed(row.get("c_over_a"), "{:.3f}"),
            fixed(row.get("volume"), "{:.3f}"),
            fixed(row.get("energy"), "{:.4f}"),
            fixed(None if above is None else 1000 * above, "{:.1f}"),
            fixed(row.get("moment"), "{:.2f}"),
            row["status"].replace("_", " "),
        ]
        table.add_row(*[Text(cell) for cell in cells], style="" if row["status"] == "converged" else "red")
    return table

"""One run of ``mmace-sim order``: read, search, write, show."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.config import RunConfig
from mmace_sim.cli.runs import PropertyRun, open_run, progress
from mmace_sim.cli.tables import MAX_ROWS, print_run
from mmace_sim.engine.declaration import fixed
from mmace_sim.engine.output import entry_head, finite_or_none, mean_moments
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import file_names, write_crystal, write_extxyz
from mmace_sim.properties.order import OrderResult, OrderSearch, RelaxedOrder
from mmace_sim.properties.relax.relaxation import Status

_log = logging.getLogger(__name__)

UNITS: dict[str, str] = {
    "energy_per_atom": "eV/atom",
    "energy_above_best": "eV/atom, above the lowest order of the same structure",
    "energy_above_lowest": "eV/atom, above the lowest order of all structures of the same composition",
    "moment": "μB, mean length of all moments",
    "magmom_by_species": "μB, mean length",
    "total_magmom": "μB",
    "magmoms": "μB",
    "volume": "Å³/atom",
    "propagation": "reciprocal vectors of the conventional cell, up to symmetry",
}
"""Unit of each quantity in the summary."""

COLUMNS: tuple[str, ...] = (
    "name", "file", "index", "formula", "start", "state", "status", "outcome", "energy_per_atom", "energy_above_best",
    "energy_above_lowest", "moment", "magnetic_order_initial", "magnetic_order_final", "magnetic_space_group",
    "space_group", "propagation", "n_cells", "n_atoms", "volume", "steps", "message",
)  # fmt: skip
"""Columns of ``summary.csv``: one line for each start, the lowest first."""


class OrderConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim order``."""

    output: str = "order"
    """Folder of the run."""
    max_supercell: int = Field(default=2, ge=1)
    """Largest number of primitive cells in a magnetic cell."""
    max_orders: int = Field(default=32, ge=1)
    """Largest number of collinear orders of a structure."""
    non_magnetic: bool = True
    """Add a start without moments."""
    random: int = Field(default=0, ge=0)
    """Number of starts with random directions."""
    spirals: bool = False
    """Add the spin spirals that fit into a magnetic cell."""
    tilt: float = Field(default=0.0, ge=0, lt=90)
    """Turn every moment of every start by this angle, in degrees."""
    seed: int = Field(default=0, ge=0)
    """Seed of random directions and tilts."""
    symprec: float = Field(default=0.01, gt=0)
    """Tolerance of positions for symmetry, in Å."""
    magmoms: Literal["joint", "adiabatic", "fixed"] = "joint"
    """Relax moments together with atoms and cell, converge them at every step, or keep them."""
    relax_cell: bool = True
    """Relax the cell."""
    relax_positions: bool = True
    """Relax the atoms."""
    fmax: float = Field(default=0.01, gt=0)
    """Largest force of a converged structure, in eV/Å."""
    stress_tol: float = Field(default=0.1, gt=0)
    """Largest stress of a converged structure, in GPa."""
    magforce_tol: float = Field(default=0.001, gt=0)
    """Largest magnetic force of a converged structure, in eV/μB."""
    max_steps: int = Field(default=1000, ge=0)
    """Largest number of steps."""
    energy_tol: float = Field(default=0.001, gt=0)
    """Largest difference of energies of one state, in eV/atom."""
    collinear: bool = False
    """Keep each moment along its initial axis."""
    fix_magnitude: bool = False
    """Keep the length of each moment."""
    figures: bool = True
    """Draw the energies of each structure."""


def run_order(config: OrderConfig, *, force: bool, quiet: bool) -> int:
    """Search the lowest magnetic order of everything that a configuration names.

    Args:
        config: The merged configuration.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0, or 3 if a structure or a start failed or did not converge.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    with open_run("order", config, force=force) as run:
        results = run.compute(lambda part: _compute(part, config, quiet=quiet))
        code, rows, entries = run.conclude(
            results,
            order_entry,
            order_rows,
            partial(_write, run.folder, config),
            columns=COLUMNS,
            units=UNITS,
        )
    if not quiet:
        print_run(_table(rows[:MAX_ROWS]), entries, run.folder, run.written)
    return code


def _compute(run: PropertyRun, config: OrderConfig, *, quiet: bool) -> list[Any]:
    """Orders of the structures of one model."""
    not_settings = {*RunConfig.model_fields, "random", "figures"}
    settings = {key: getattr(config, key) for key in OrderConfig.model_fields if key not in not_settings}
    search = OrderSearch(
        run.model, n_random=config.random, max_batch_atoms=config.max_batch_atoms, **settings
    )
    with progress("Relaxing", None, "starts", quiet=quiet) as advance:
        return search.run(
            [item.atoms for item in run.structures],
            on_finished=lambda _, total: advance(1, total=total),
        )


def order_entry(item: LoadedStructure, result: OrderResult) -> dict[str, Any]:
    """The entry of one structure in ``summary.json``.

    Args:
        item: What was read.
        result: Its orders.

    Returns:
        Plain JSON values in the units of `UNITS`.
    """
    if result.note:
        item.notes.append(result.note)
    ranked = sorted(result.orders, key=_rank)
    return entry_head(item, str(result.status), result.message) | {
        "best": None if result.best is None else result.best.name,
        "n_states": len(result.states),
        "orders": [_order_entry(order) for order in ranked],
    }


def _rank(order: RelaxedOrder) -> tuple[bool, bool, float, bool]:
    """Converged states first; low energies first, the start that stands for a state before the others."""
    is_finite = bool(np.isfinite(order.energy))
    energy = round(order.energy, 4) if is_finite else 0.0
    return order.status is not Status.CONVERGED, not is_finite, energy, order.state != order.name


def _order_entry(order: RelaxedOrder) -> dict[str, Any]:
    atoms, symmetry = order.atoms, order.symmetry
    has_end = order.order_final is not None
    wave = order.start.propagation
    return {
        "start": order.name,
        "state": order.state,
        "status": str(order.status),
        "outcome": order.outcome,
        "message": order.message,
        "energy_per_atom": finite_or_none(order.energy),
        "energy_above_best": finite_or_none(order.energy_above_best),
        "energy_above_lowest": finite_or_none(order.energy_above_lowest),
        "magnetic_order_initial": str(order.order_initial),
        "magnetic_order_final": str(order.order_final) if has_end else None,
        "moment": float(np.linalg.norm(order.magmoms, axis=1).mean()) if has_end else None,
        "magmom_by_species": mean_moments(atoms, order.magmoms) if has_end else None,
        "total_magmom": order.magmoms.sum(axis=0).tolist() if has_end else None,
        "magmoms": order.magmoms.tolist() if has_end else None,
        "magnetic_space_group": symmetry and symmetry.bns_number,
        "magnetic_space_group_uni": symmetry and symmetry.uni_number,
        "space_group": symmetry and symmetry.space_group,
        "propagation": None if wave is None else " ".join(map(str, wave)),
        "n_cells": order.start.n_cells,
        "n_atoms": len(atoms),
        "volume": float(atoms.cell.volume / len(atoms)) if has_end and atoms.pbc.all() else None,
        "steps": order.steps,
    }


def order_rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the table: one for each start, or one that says why there is none.

    Args:
        entry: From `order_entry`, or of a structure that failed.

    Returns:
        One dictionary for each line.
    """
    head = {key: entry[key] for key in ("name", "file", "index", "formula")}
    if not entry.get("orders"):
        return [head | {"status": entry["status"], "message": entry["message"]}]
    return [head | order for order in entry["orders"]]


def _write(
    folder: Path, config: OrderConfig, computed: list[tuple[LoadedStructure, OrderResult]]
) -> list[str]:
    """Write structures and figures; returns their names."""
    images = []
    for item, result in computed:
        for order in sorted(result.orders, key=_rank):
            image = order.atoms.copy()
            image.calc = order.atoms.calc
            image.info |= {"name": item.name, "start": order.name, "status": str(order.status)}
            image.info |= {"state": order.state} if order.state else {}
            images.append(image)
    write_extxyz(folder / "relaxed.extxyz", images)
    stems = file_names([item.name for item, _ in computed])
    for stem, (item, result) in zip(stems, computed, strict=True):
        if result.best is not None:
            note = write_crystal(folder / "structures" / f"{stem}.mcif", result.best.atoms, "mcif")
            if note:
                _log.warning("%s: %s", item.name, note)
    if not config.figures:
        return ["relaxed.extxyz", "structures/"]
    from mmace_sim.properties.order.plots import save_order_figure

    (folder / "figures").mkdir(exist_ok=True)
    for stem, (_, result) in zip(stems, computed, strict=True):
        save_order_figure(result, folder / "figures" / stem)
    return ["relaxed.extxyz", "structures/", "figures/"]


def _in_mev(energy: float | None) -> float | None:
    """An energy in meV, without the sign of a zero."""
    return None if energy is None else round(1000 * energy, 1) + 0.0


def _table(rows: list[dict[str, Any]]) -> Table:
    """One line for each start; where several structures share a composition, with their common zero."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    compared = any(row.get("energy_above_best") != row.get("energy_above_lowest") for row in rows)
    headings = ["file", "start", "ΔE\nmeV/atom", "to lowest\nmeV/atom", "|m|\nμB", "V\nÅ³/atom", "k", "cells"]
    headings += ["magnetic\nspace group", "outcome"]
    for heading in headings:
        if compared or not heading.startswith("to lowest"):
            right = heading[:2] in ("ΔE", "to", "|m", "V\n", "ce")
            table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        above, lowest = row.get("energy_above_best"), row.get("energy_above_lowest")
        ended_well = row["status"] == "converged"
        cells = [
            row["name"],
            row.get("start") or "",
            fixed(_in_mev(above), "{:.1f}"),
            *([fixed(_in_mev(lowest), "{:.1f}")] if compared else []),
            fixed(row.get("moment"), "{:.2f}"),
            fixed(row.get("volume"), "{:.2f}"),
            row.get("propagation") or "",
            str(row.get("n_cells") or ""),
            row.get("magnetic_space_group") or "–",
            row.get("outcome") or "" if ended_well else row["status"].replace("_", " "),
        ]
        table.add_row(*[Text(cell) for cell in cells], style="" if ended_well else "red")
    return table

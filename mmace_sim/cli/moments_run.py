"""One run of ``mmace-sim moments``: read, minimise, write, show."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.config import RunConfig, split_list
from mmace_sim.cli.runs import PropertyRun, open_run, progress
from mmace_sim.cli.tables import MAX_ROWS, print_run
from mmace_sim.engine.declaration import fixed
from mmace_sim.engine.output import entry_head, finite_or_none, mean_moments, write_csv
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import file_names, write_crystal, write_extxyz
from mmace_sim.properties.moments import MomentMinimum, MomentResult, MomentSearch

UNITS: dict[str, str] = {
    "energy": "eV/atom; in a field B (tesla) with −μB B·Σm, μB = 5.7883818e-5 eV/T",
    "energy_above_lowest": "eV/atom, above the lowest minimum of the same structure",
    "magmoms": "μB",
    "magmom_by_species": "μB, mean length",
    "total_magmom": "μB",
    "max_magforce": "eV/μB",
    "lowest_curvature": "eV/μB², of ∂²E/∂m∂m within the constraints",
    "n_evaluations": "1, evaluations of the model for all starts",
}
"""Unit of each quantity in the summary."""

COLUMNS: tuple[str, ...] = (
    "name", "file", "index", "formula", "status", "minimum", "energy", "energy_above_lowest", "n_starts",
    "is_stable", "lowest_curvature", "magmom_by_species", "total_magmom", "magnetic_order", "magnetic_space_group",
    "message",
)  # fmt: skip
"""Columns of ``summary.csv``: one line for each minimum."""

_log = logging.getLogger(__name__)

START_COLUMNS: tuple[str, ...] = (
    "name", "start", "status", "minimum", "steps", "energy_initial", "energy", "max_magforce", "message",
)  # fmt: skip
"""Columns of ``starts.csv``: one line for each start; energies in eV/atom."""


class MomentsConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim moments``."""

    output: str = "moments"
    """Folder of the run."""
    starts: int = Field(default=32, ge=1)
    """Random starts of each structure."""
    seed: int = Field(default=0, ge=0)
    """Seed of the random starts."""
    solver: Literal["lbfgs", "fire"] = "lbfgs"
    """How to go downhill."""
    magforce_tol: float = Field(default=1e-4, gt=0)
    """Largest magnetic force of a converged start, in eV/μB."""
    max_steps: int = Field(default=500, ge=0)
    """Largest number of steps of a start."""
    collinear: bool = False
    """Moments keep their axis and start with random signs."""
    fix_magnitude: bool = False
    """Moments keep their length."""
    only: list[str] = Field(default_factory=list)
    """Elements and indices of atoms (from 0) whose moments may change; empty: all."""
    field: list[float] = Field(default=[0.0, 0.0, 0.0], min_length=3, max_length=3)
    """Applied field in tesla; the energy contains −B·Σm."""
    energy_tol: float = Field(default=1e-4, gt=0)
    """Ends closer than this, in eV/atom, with like moments are one minimum."""
    stability: bool = True
    """Compute the curvature of the energy at each minimum."""
    figures: bool = True
    """Draw the descent of each structure."""

    @field_validator("only", "field", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """``Mn,Pt`` is a list."""
        return [str(item) if isinstance(item, int) else item for item in split_list(value)]


def run_moments(config: MomentsConfig, *, force: bool, quiet: bool) -> int:
    """Minimise the moments of everything that a configuration names.

    Args:
        config: The merged configuration.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0, or 3 if a structure failed or a start did not converge.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    with open_run("moments", config, force=force) as run:
        results = run.compute(lambda part: _compute(part, config, quiet=quiet))
        code, rows, entries = run.conclude(
            results,
            moments_entry,
            _minimum_rows,
            partial(_write, run.folder, config),
            columns=COLUMNS,
            units=UNITS,
        )
    if not quiet:
        print_run(_table(rows[:MAX_ROWS]), entries, run.folder, run.written)
    return code


def _compute(run: PropertyRun, config: MomentsConfig, *, quiet: bool) -> list[Any]:
    """Minima of the structures of one model."""
    search = MomentSearch(
        run.model,
        n_starts=config.starts,
        seed=config.seed,
        solver=config.solver,
        magforce_tol=config.magforce_tol,
        max_steps=config.max_steps,
        collinear=config.collinear,
        fix_magnitude=config.fix_magnitude,
        only=config.only,
        field=config.field,
        energy_tol=config.energy_tol,
        stability=config.stability,
        max_batch_atoms=config.max_batch_atoms,
    )
    with progress("Minimising", None, "starts", quiet=quiet) as advance:
        return search.run(
            [item.atoms for item in run.structures],
            on_finished=lambda _, total: advance(1, total=total),
        )


def moments_entry(item: LoadedStructure, result: MomentResult) -> dict[str, Any]:
    """The entry of one structure in ``summary.json``.

    Args:
        item: What was read.
        result: Its starts and minima.

    Returns:
        Plain JSON values in the units of `UNITS`.
    """
    steps = [start.steps for start in result.starts]
    return entry_head(item, str(result.status), result.message) | {
        "n_starts": len(result.starts),
        "n_converged": result.n_converged,
        "n_lowest": result.n_lowest,
        "n_evaluations": sum(steps) + len(steps),
        "mean_steps": finite_or_none(np.mean(steps)) if steps else None,
        "minima": [_minimum_entry(minimum) for minimum in result.minima],
    }


def _minimum_entry(minimum: MomentMinimum) -> dict[str, Any]:
    symmetry, curvature = minimum.symmetry, minimum.curvature
    return {
        "minimum": minimum.number,
        "energy": minimum.energy,
        "energy_above_lowest": minimum.energy_above_lowest,
        "n_starts": minimum.n_starts,
        "is_stable": minimum.is_stable,
        "lowest_curvature": None if curvature is None else curvature.lowest,
        "magmom_by_species": mean_moments(minimum.atoms, minimum.magmoms),
        "total_magmom": float(np.linalg.norm(minimum.magmoms.sum(axis=0))),
        "magnetic_order": str(minimum.order),
        "magnetic_space_group": None if symmetry is None else symmetry.bns_number,
        "magmoms": minimum.magmoms.tolist(),
    }


def _minimum_rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    head = {key: entry[key] for key in ("name", "file", "index", "formula", "status", "message")}
    return [head | minimum for minimum in entry.get("minima") or [{}]]


def _write(
    folder: Path, config: MomentsConfig, computed: list[tuple[LoadedStructure, MomentResult]]
) -> list[str]:
    """Write starts, minima and figures; returns their names."""
    rows = [
        {
            "name": item.name,
            "start": start.number,
            "status": str(start.status),
            "minimum": start.minimum,
            "steps": start.steps,
            "energy_initial": _first(start.descent.energies, len(item.atoms)),
            "energy": finite_or_none(start.energy),
            "max_magforce": finite_or_none(start.max_magforce),
            "message": start.message,
        }
        for item, result in computed
        for start in result.starts
    ]
    write_csv(folder / "starts.csv", START_COLUMNS, rows)
    stems = file_names([item.name for item, _ in computed])
    images = []
    for stem, (_, result) in zip(stems, computed, strict=True):
        for minimum in result.minima:
            minimum.atoms.info |= {
                "name": f"{stem}-{minimum.number}",
                "n_starts": minimum.n_starts,
                "magnetic_space_group": minimum.symmetry.bns_number if minimum.symmetry else "unknown",
            }
            images.append(minimum.atoms)
    write_extxyz(folder / "minima.extxyz", images)
    for atoms in images:
        note = write_crystal(folder / "structures" / f"{atoms.info['name']}.mcif", atoms, "mcif")
        if note and atoms.pbc.all():
            _log.warning("%s: %s", atoms.info["name"], note)
    names = ["starts.csv", "minima.extxyz", "structures/"]
    if not config.figures:
        return names
    from mmace_sim.properties.moments.plots import save_moment_figures

    (folder / "figures").mkdir(exist_ok=True)
    for stem, (_, result) in zip(stems, computed, strict=True):
        save_moment_figures(result, folder / "figures" / stem, config.magforce_tol)
    return [*names, "figures/"]


def _first(energies: np.ndarray, n_atoms: int) -> float | None:
    return finite_or_none(energies[0] / n_atoms) if len(energies) else None


def _table(rows: list[dict[str, Any]]) -> Table:
    """One line for each minimum."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("file", "minimum", "E\neV/atom", "ΔE\nmeV/atom", "starts", "|m|\nμB", "total m\nμB"):
        table.add_column(heading, justify="left" if heading == "file" else "right", overflow="fold")
    for heading in ("order", "magnetic\ngroup", "stable", "status"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        above, species = row.get("energy_above_lowest"), row.get("magmom_by_species") or {}
        stable = {True: "yes", False: "saddle", None: "–"}[row.get("is_stable")]
        cells = [
            row["name"],
            str(row.get("minimum") or "–"),
            fixed(row.get("energy"), "{:.6f}"),
            fixed(None if above is None else 1000 * above, "{:.2f}"),
            str(row.get("n_starts") or "–"),
            " ".join(f"{symbol} {fixed(value, '{:.2f}')}" for symbol, value in species.items()) or "–",
            fixed(row.get("total_magmom"), "{:.2f}"),
            row.get("magnetic_order") or "–",
            row.get("magnetic_space_group") or "–",
            stable,
            row["status"].replace("_", " "),
        ]
        table.add_row(*[Text(cell) for cell in cells], style="" if row["status"] == "converged" else "red")
    return table

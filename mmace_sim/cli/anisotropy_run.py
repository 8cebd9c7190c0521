"""One run of ``mmace-sim anisotropy``: read, compute, write, rank, show."""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.config import RunConfig, split_list
from mmace_sim.cli.runs import PropertyRun, open_run, progress
from mmace_sim.cli.tables import MAX_ROWS, print_run
from mmace_sim.engine.declaration import fixed
from mmace_sim.plots import save_figure
from mmace_sim.properties.anisotropy import Anisotropy, AnisotropyResult
from mmace_sim.properties.anisotropy.host import spin_orbit_host
from mmace_sim.properties.anisotropy.output import (
    ANISOTROPY_COLUMNS,
    ANISOTROPY_UNITS,
    SENSITIVITY_COLUMNS,
    SENSITIVITY_UNITS,
    anisotropy_entry,
    ranked,
    sensitivity_entry,
    write_anisotropy,
)
from mmace_sim.properties.anisotropy.sensitivity import Sensitivity, SensitivityResult

_Vector = Annotated[list[float], Field(min_length=3, max_length=3)]
Direction = Annotated[_Vector | None, BeforeValidator(split_list)]


class AnisotropyConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim anisotropy``."""

    output: str = "anisotropy"
    """Folder of the run."""
    dtype: Literal["float64"] = "float64"
    """Precision; in float32 anisotropy drowns in rounding."""
    directions: int = Field(default=50, ge=3)
    """Least number of directions."""
    plane: Direction = None
    """Normal of a plane to turn in, Cartesian; None: the whole sphere."""
    form: Literal["auto", "uniaxial", "cubic", "general"] = "auto"
    """What is fitted; auto: as the symmetry asks for."""
    axis: Direction = None
    """Unique axis, Cartesian; None: that of the crystal."""
    max_ell: int = Field(default=6, ge=2)
    """Highest degree of the harmonics."""
    curve_points: int = Field(default=18, ge=0)
    """Directions in each of three planes; 0: none."""
    map: bool = False
    """Only how much random rotations of all moments change the energy."""
    rotations: int = Field(default=16, ge=2)
    """Number of rotations of a map."""
    seed: int = Field(default=0, ge=0)
    """Seed of the rotations."""
    magmoms: Literal["relaxed", "fixed"] = "relaxed"
    """Lengths of collinear orders relax at their direction first, or stay as in the file."""
    lengths: Literal["rigid", "relaxed"] = "rigid"
    """Lengths while the moments turn."""
    magforce_tol: float = Field(default=1e-6, gt=0)
    """Largest magnetic force of relaxed lengths, in eV/μB."""
    max_steps: int = Field(default=500, ge=0)
    """Largest number of steps of the lengths."""
    figures: bool = True
    """Draw energies in planes and on the sphere, and the ranking."""


def run_anisotropy(config: AnisotropyConfig, *, resume: bool, force: bool, quiet: bool) -> int:
    """Compute the anisotropy of everything that a configuration names, or the map of a data set.

    Args:
        config: The merged configuration.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0, or 3 if a structure failed.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model has no spin–orbit coupling, or the machine lacks what an option asks for.
    """
    admit = partial(spin_orbit_host, device=None)
    with open_run("anisotropy", config, resume=resume, force=force, admit=admit) as run:
        compute = _map if config.map else _anisotropy
        entries, code, names = compute(run, quiet=quiet)
    if not quiet:
        table = _map_table if config.map else _table
        print_run(table(entries[:MAX_ROWS]), entries, run.folder, names, n_resumed=run.n_resumed)
    return code


def _anisotropy(run: PropertyRun, *, quiet: bool) -> tuple[list[dict[str, Any]], int, list[str]]:
    """Anisotropy of all structures: ranked entries, exit code, and what else was written."""
    fields = (
        "directions", "plane", "form", "axis", "magmoms", "lengths", "max_ell", "curve_points", "magforce_tol",
        "max_steps", "max_batch_atoms",
    )  # fmt: skip
    config, folders = run.config, run.folders
    for part in run.parts():
        workflow = Anisotropy(part.model, **{name: getattr(config, name) for name in fields})
        _turn(part, workflow, quiet=quiet)
    entries = run.stored_entries()
    rows = ranked(entries, "mae")
    names = [f"{folder.name}/" for folder in list(folders.values())[:3]]
    if config.figures and sum("rank" in row for row in rows) > 1:
        from mmace_sim.properties.anisotropy.plots import ranking_figure

        (run.folder / "figures").mkdir(exist_ok=True)
        save_figure(ranking_figure(rows), run.folder / "figures" / "ranking")
        names.append("figures/ranking.png")
    code = run.finish(entries, columns=ANISOTROPY_COLUMNS, units=ANISOTROPY_UNITS, rows=rows)
    return rows, code, names


def _turn(run: PropertyRun, workflow: Anisotropy, *, quiet: bool) -> None:
    """Anisotropy of the structures of one model that are not finished."""
    pending, folders = run.pending, run.folders
    with progress("Turning", len(pending), "structures", quiet=quiet) as advance:

        def store(index: int, result: AnisotropyResult) -> None:
            item = pending[index]

            def write() -> tuple[dict[str, Any], None]:
                write_anisotropy(result, folders[item.name], figures=run.config.figures)
                return anisotropy_entry(item, result), None

            run.record(item, write)
            advance()

        workflow.run([item.atoms for item in pending], on_finished=store)


def _map(run: PropertyRun, *, quiet: bool) -> tuple[list[dict[str, Any]], int, list[str]]:
    """Sensitivity of all structures: ranked entries, exit code, and what else was written."""
    config = run.config
    for part in run.parts():
        _rotate(part, quiet=quiet)
    entries = run.stored_entries()
    rows = ranked(entries, "sensitivity")
    names = []
    if config.figures and any("rank" in row for row in rows):
        from mmace_sim.properties.anisotropy.plots import sensitivity_figure

        (run.folder / "figures").mkdir(exist_ok=True)
        save_figure(sensitivity_figure(rows), run.folder / "figures" / "sensitivity")
        names.append("figures/sensitivity.png")
    code = run.finish(entries, columns=SENSITIVITY_COLUMNS, units=SENSITIVITY_UNITS, rows=rows)
    return rows, code, names


def _rotate(run: PropertyRun, *, quiet: bool) -> None:
    """Sensitivity of the structures of one model that are not finished."""
    config, pending = run.config, run.pending
    workflow = Sensitivity(
        run.model, rotations=config.rotations, seed=config.seed, max_batch_atoms=config.max_batch_atoms
    )
    with progress("Rotating", len(pending), "structures", quiet=quiet) as advance:

        def store(index: int, result: SensitivityResult) -> None:
            item = pending[index]
            run.record(item, lambda: (sensitivity_entry(item, result), None))
            advance()

        workflow.run([item.atoms for item in pending], on_finished=store)


def _table(entries: list[dict[str, Any]]) -> Table:
    """Constants and easy directions, the largest MAE first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    texts = ("file", "form", "easy", "status")
    for heading in (
        "file", "form", "K1\nμeV/atom", "K2\nμeV/atom", "K3\nμeV/atom", "MAE\nμeV/atom", "MAE\nmeV/f.u.", "MAE\nMJ/m³",
        "easy", "residual\nμeV/atom", "status",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading in texts else "right", overflow="fold")
    for entry in entries:
        cells = [entry["name"], entry.get("form", "–")]
        cells += [fixed(entry.get(name), "{:.3f}") for name in ("K1", "K2", "K3", "mae")]
        cells += [fixed(entry.get("mae_mev_fu"), "{:.4f}"), fixed(entry.get("mae_mj_m3"), "{:.4f}")]
        easy = " ".join(str(part) for part in (entry.get("easy"), entry.get("easy_crystal")) if part)
        cells += [easy or "–", fixed(entry.get("fit_residual"), "{:.2g}"), entry["status"].replace("_", " ")]
        table.add_row(*[Text(cell) for cell in cells], style="" if entry["status"] == "converged" else "red")
    return table


def _map_table(entries: list[dict[str, Any]]) -> Table:
    """Sensitivities, the largest first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("file", "group", "order", "rms change\nμeV/atom", "spread\nμeV/atom", "status"):
        table.add_column(heading, justify="right" if "μeV" in heading else "left", overflow="fold")
    for entry in entries:
        cells = [entry["name"], entry.get("group", "–"), entry.get("magnetic_order", "–")]
        cells += [fixed(entry.get(name), "{:.3f}") for name in ("sensitivity", "spread")]
        cells.append(entry["status"].replace("_", " "))
        table.add_row(*[Text(cell) for cell in cells], style="" if entry["status"] == "converged" else "red")
    return table

"""One run of ``mmace-sim md``: read, simulate, write as it goes, show."""

import copy
import logging
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from pydantic import Field, field_validator
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.config import NOT_PHYSICS, RunConfig, split_list
from mmace_sim.cli.runs import (
    PropertyRun,
    progress,
)
from mmace_sim.cli.tables import MAX_ROWS, print_run
from mmace_sim.engine.declaration import fixed
from mmace_sim.engine.folder import now
from mmace_sim.engine.inputs import prepare_run
from mmace_sim.engine.machine import quiet_imports
from mmace_sim.engine.outcomes import Status
from mmace_sim.engine.output import entry_head, mean_moments
from mmace_sim.engine.progress import says_what_is_finished
from mmace_sim.engine.resume import open_resumable
from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.io.writing import file_names, write_extxyz
from mmace_sim.properties.md import Frame, MDResult, MDStatus, MolecularDynamics
from mmace_sim.properties.md import frames as md_frames
from mmace_sim.properties.md.averages import UNITS, averages
from mmace_sim.properties.md.files import SimulationFiles
from mmace_sim.properties.singlepoint import SinglePoint
from mmace_sim.structures.supercells import parse_supercell
from mmace_sim.torchsim.langevin_spins import ELECTRON_G

COLUMNS: tuple[str, ...] = (
    "name", "file", "index", "formula", "n_atoms", "status", "n_steps", "time", "temperature", "spin_temperature",
    "energy_potential", "mean_magmom", "total_magmom", "pressure", "volume", "energy_drift", "energy_noise",
    "evaluations_per_step", "message",
)  # fmt: skip
"""Columns of ``summary.csv``."""

MAY_DIFFER: frozenset[str] = NOT_PHYSICS | {"n_steps"}
"""Fields that may differ when a run is resumed."""

NEEDS: dict[str, tuple[str, str, frozenset[str]]] = {
    "friction": ("ensemble", "a heat bath", frozenset({"nvt", "npt"})),
    "pressure": ("ensemble", "a barostat", frozenset({"npt"})),
    "pressure_time": ("ensemble", "a barostat", frozenset({"npt"})),
    "damping": ("spins", "precessing moments", frozenset({"llg"})),
    "lengths": ("spins", "precessing moments", frozenset({"llg"})),
    "g_factor": ("spins", "precessing moments", frozenset({"llg"})),
    "solver": ("spins", "precessing moments", frozenset({"llg"})),
    "magforce_tol": ("spins", "moments that follow", frozenset({"adiabatic"})),
    "field": ("spins", "moments that move", frozenset({"adiabatic", "llg"})),
    "length_friction": ("lengths", "fluctuating lengths", frozenset({"langevin"})),
}
"""Options without effect unless another option has one of these values."""

_log = logging.getLogger(__name__)


class MDConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim md``."""

    output: str = "md"
    """Folder of the run."""
    ensemble: Literal["nve", "nvt", "npt"] = "nvt"
    """Constant energy, a heat bath, or a heat bath and a pressure."""
    spins: Literal["frozen", "adiabatic", "llg"] = "frozen"
    """Moments stay, are relaxed at every step, or precess and are damped."""
    temperature: float = Field(default=300.0, ge=0)
    """Temperature of the bath, and of velocities that a structure does not have, in K."""
    timestep: float = Field(default=1.0, gt=0)
    """Time step, in fs."""
    n_steps: int = Field(default=1000, ge=0)
    """Number of steps."""
    record_every: int = Field(default=10, ge=1)
    """Steps between two frames."""
    supercell: list[int] = Field(default=[1])
    """Repeats of every structure: one number, three, or a matrix row by row."""
    friction: float = Field(default=10.0, gt=0)
    """Friction of the atoms in a heat bath, in 1/ps."""
    pressure: float = 0.0
    """Pressure for npt, in GPa."""
    pressure_time: float = Field(default=0.5, gt=0)
    """Relaxation time of the volume for npt, in ps, for a bulk modulus of 100 GPa."""
    damping: float | None = Field(default=None, ge=0)
    """Gilbert damping; None: 0.1, and 0 for nve."""
    lengths: Literal["fixed", "langevin"] = "fixed"
    """Lengths of moments under llg: fixed, or fluctuating with the bath."""
    length_friction: float = Field(default=0.05, gt=0)
    """Friction of fluctuating lengths, in μB²/(eV fs)."""
    g_factor: float | dict[str, float] = ELECTRON_G
    """g factor of all moments, or by element (others: the electron's)."""
    field: list[float] = Field(default=[0.0, 0.0, 0.0], min_length=3, max_length=3)
    """Applied field in tesla; the energy contains −B·Σm."""
    solver: Literal["midpoint", "sib"] = "midpoint"
    """How a step of the moments is solved."""
    magforce_tol: float = Field(default=1e-3, gt=0)
    """Largest magnetic force that adiabatic moments keep, in eV/μB."""
    seed: int = Field(default=0, ge=0)
    """Seed of all noise."""
    figures: bool = True
    """Draw energies, temperatures and moments of each structure."""

    @field_validator("supercell", "field", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """``3,3,3`` is a list."""
        return [value] if isinstance(value, int | float) else split_list(value)

    @field_validator("g_factor", mode="before")
    @classmethod
    def _by_element(cls, value: Any) -> Any:
        """``Fe:2.1,Co:2.2`` is a mapping."""
        if isinstance(value, str) and ":" in value:
            return dict(part.strip().split(":", 1) for part in value.split(","))
        return value


def refuse_idle(config: MDConfig, flags: Collection[str]) -> None:
    """Refuse options that would do nothing.

    Args:
        config: The merged configuration.
        flags: Options given on the command line; what only a file names counts if it differs from the default, because
            the `config.yaml` of a run names everything.

    Raises:
        ConfigError: If there are any.
    """
    lines = []
    for name, (switch, what, values) in NEEDS.items():
        given = name in flags or getattr(config, name) != type(config).model_fields[name].default
        chosen = getattr(config, switch)
        if given and chosen not in values:
            label = f"--{name.replace('_', '-')}" if name in flags else name
            lines.append(
                f"{label}: has no effect with --{switch} {chosen}; it is for {what} "
                f"(--{switch} {' or '.join(sorted(values))}). Leave it out, or choose that."
            )
    if lines:
        raise ConfigError("\n".join(lines))


def run_md(config: MDConfig, *, resume: bool, force: bool, quiet: bool) -> int:
    """Simulate everything that a configuration names.

    Args:
        config: The merged configuration.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0; 3 if a structure failed or exploded; 128 plus the number of the signal that stops it.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If settings contradict each other, or the model lacks what an option asks for.
    """
    skipped: list[FailedStructure] = []
    with quiet_imports():
        models, items = prepare_run(config, admit=partial(_dynamics, config), skipped=skipped)
    for name, model in models.items():
        mine = [item for item in items if isinstance(item, LoadedStructure) and item.model == name]
        _relax_guesses(mine, config, model)
    matrix = parse_supercell(config.supercell)
    for item in items:
        if isinstance(item, LoadedStructure):
            item.atoms = _repeated(item.atoms, matrix)
    folder = Path(config.output)
    run = PropertyRun("md", config, folder, models, items, now(), skipped=skipped)
    with open_resumable(run, resume=resume, force=force, may_differ=MAY_DIFFER) as manifest:
        manifest.begin()
        names = file_names([item.name for item in run.structures])
        files = [SimulationFiles(folder / name) for name in names]
        files_of = {item.name: file for item, file in zip(run.structures, files, strict=True)}
        how = f"All frames up to now are safe in {folder}: run the same command with --resume to go on."
        with says_what_is_finished(lambda: how):
            results = run.compute(lambda part: _simulate(part, files_of, quiet=quiet))
        entries = _entries(run, results, files)
        units = md_frames.UNITS | UNITS
        code = run.finish(entries, columns=COLUMNS, units=units, write=lambda: _write(run, files))
    if not quiet:
        print_run(_table(entries[:MAX_ROWS]), entries, folder, run.written)
    return code


def _relax_guesses(items: list[LoadedStructure], config: MDConfig, model: Any) -> None:
    """Relax moments that were guessed, at fixed atoms, where the simulation keeps their lengths.

    Random ones are left alone: whoever asks for disorder wants it.
    """
    keeps = config.spins == "frozen" or (config.spins == "llg" and config.lengths == "fixed")
    random = (config.initial_magmoms or "").startswith("random")
    guessed = [item for item in items if item.guessed_moments]
    if not keeps or random or not guessed:
        return
    images = [item.atoms for item in guessed]
    device = next(model.parameters()).device
    point = SinglePoint(model, magmoms="relaxed", device=device, max_batch_atoms=config.max_batch_atoms)
    for item, result in zip(guessed, point.run(images), strict=True):
        if result.status is not Status.CONVERGED:
            item.notes.append(
                f"the guessed moments did not relax and are kept ({result.status}: {result.message})"
            )
            continue
        set_magmoms(item.atoms, result.magmoms)
        means = ", ".join(
            f"{name} {value:.2f}" for name, value in mean_moments(item.atoms, result.magmoms).items()
        )
        item.notes.append(f"the guessed moments were relaxed at fixed atoms: {means} μB")


def _repeated(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """A supercell, with the constraints of atoms that `make_supercell` forgets."""
    repeated = make_supercell(atoms, matrix, order="atom-major")
    images = np.arange(len(repeated)).reshape(len(atoms), -1)
    constraints = [copy.copy(constraint) for constraint in atoms.constraints]
    for constraint in constraints:
        if hasattr(constraint, "index"):
            constraint.index = images[constraint.index].ravel()
    repeated.set_constraint(constraints)
    return repeated


def _dynamics(config: MDConfig, model: Any) -> MolecularDynamics:
    import torch

    names = (
        "ensemble", "spins", "temperature", "timestep", "n_steps", "record_every", "friction", "pressure",
        "pressure_time", "damping", "lengths", "length_friction", "g_factor", "field", "solver", "magforce_tol",
        "seed", "max_batch_atoms",
    )  # fmt: skip
    settings = {name: getattr(config, name) for name in names}
    device = next(model.parameters()).device
    return MolecularDynamics(model, device=device, dtype=getattr(torch, config.dtype), **settings)


def _simulate(run: PropertyRun, files_of: dict[str, SimulationFiles], *, quiet: bool) -> list[MDResult]:
    """Go on from the checkpoints; every frame is on disk before the next step."""
    dynamics = _dynamics(run.config, run.model)
    files = [files_of[item.name] for item in run.structures]
    checkpoints = [file.resume() for file in files]
    before = sum(checkpoint.n_steps for checkpoint in checkpoints if checkpoint is not None)
    if before:
        _log.info("resumed: %d steps of all structures were done before", before)
    done = [0 if checkpoint is None else checkpoint.n_steps for checkpoint in checkpoints]
    with progress("Simulating", run.config.n_steps * len(files), "steps", quiet=quiet) as advance:
        advance(before)

        def store(index: int, frame: Frame) -> None:
            files[index].append(frame)
            step = frame.checkpoint.n_steps
            advance(step - done[index], detail=f"{frame.values['temperature']:.0f} K")
            done[index] = step

        images = [item.atoms for item in run.structures]
        return dynamics.run(images, checkpoints=checkpoints, on_frame=store)


def _entries(run: PropertyRun, results: list[MDResult], files: list[SimulationFiles]) -> list[dict[str, Any]]:
    rest = iter(files)

    def entry_of(item: LoadedStructure, result: MDResult) -> dict[str, Any]:
        rows = next(rest).rows()
        last = rows[-1] if rows else {"step": 0, "time": 0.0}
        head = entry_head(item, str(result.status), result.message)
        head |= {"n_steps": int(last["step"]), "time": last["time"], "n_frames": len(rows)}
        return head | averages(rows, len(item.atoms), bath=run.config.ensemble != "nve")

    return run.entries(results, entry_of)


def _write(run: PropertyRun, files: list[SimulationFiles]) -> list[str]:
    """Write the last structures and the figures; returns what there is."""
    last = []
    for item, file in zip(run.structures, files, strict=True):
        atoms = file.last()
        if atoms is not None:
            atoms.info["name"] = item.name
            last.append(atoms)
    write_extxyz(run.folder / "final.extxyz", last)
    if run.config.figures:
        from mmace_sim.properties.md.plots import save_md_figures

        bath = run.config.temperature if run.config.ensemble != "nve" else None
        for item, file in zip(run.structures, files, strict=True):
            save_md_figures(file.rows(), file.folder, len(item.atoms), bath)
    return ["final.extxyz", "*/trajectory.extxyz", "*/thermo.csv"]


def _table(entries: list[dict[str, Any]]) -> Table:
    """One line for each structure."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("file", overflow="fold")
    for heading in ("steps", "time\nps", "T\nK", "T spins\nK", "E pot\neV/atom", "|m|\nμB", "|M|\nμB/atom"):
        table.add_column(heading, justify="right")
    for heading in ("P\nGPa", "drift\nmeV/atom/ps"):
        table.add_column(heading, justify="right")
    table.add_column("status", overflow="fold")
    for entry in entries:
        time = entry.get("time")
        cells = [
            entry["name"],
            str(entry.get("n_steps") or 0),
            fixed(None if time is None else time / 1000.0, "{:.3f}"),
            fixed(entry.get("temperature"), "{:.0f}"),
            fixed(entry.get("spin_temperature"), "{:.0f}"),
            fixed(entry.get("energy_potential"), "{:.4f}"),
            fixed(entry.get("mean_magmom"), "{:.3f}"),
            fixed(entry.get("total_magmom"), "{:.3f}"),
            fixed(entry.get("pressure"), "{:.2f}"),
            fixed(entry.get("energy_drift"), "{:+.3f}"),
            entry["status"],
        ]
        good = entry["status"] == MDStatus.FINISHED
        table.add_row(*[Text(cell) for cell in cells], style="" if good else "red")
    return table

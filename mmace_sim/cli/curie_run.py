"""One run of ``mmace-sim curie``: read, sample, write, show."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.config import RunConfig
from mmace_sim.cli.runs import PropertyRun, open_run, progress
from mmace_sim.cli.tables import MAX_ROWS, print_run
from mmace_sim.engine.declaration import fixed
from mmace_sim.engine.machine import pick_device
from mmace_sim.errors import ConfigError
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.properties.curie.from_exchange import read_exchange_run
from mmace_sim.properties.curie.output import CURIE_COLUMNS, CURIE_UNITS, curie_entry, write_curie
from mmace_sim.properties.curie.spin_codes import SPIN_CODES, read_spin_models
from mmace_sim.properties.curie.temperatures import Curie, CurieResult, planned_sweeps
from mmace_sim.sampling.hamiltonian import SpinHamiltonian


class CurieConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim curie``."""

    output: str = "curie"
    """Folder of the run."""
    method: Literal["heisenberg", "direct"] = "heisenberg"
    """Spins coupled by exchange constants, or the energy of the model itself."""
    temperatures: list[float] | None = Field(default=None, min_length=1)
    """In K; None: around the transition (heisenberg), 100 to 1500 (direct)."""
    sizes: list[int] | None = Field(default=None, min_length=1)
    """Multiples of the cell; None: 6, 8, 12 (heisenberg), 3, 4 (direct)."""
    sweeps: int | None = Field(default=None, ge=10)
    """Sweeps or trajectories of each chain that count; None: 3000 (heisenberg), 300 (direct)."""
    equilibration: int | None = Field(default=None, ge=0)
    """Sweeps before; None: a fifth."""
    replicas: int = Field(default=1, ge=1)
    """Chains at each temperature."""
    seed: int = Field(default=0, ge=0)
    """Seed of the random numbers."""
    over_relaxation: int = Field(default=3, ge=0)
    """Over-relaxation sweeps after each heat bath."""
    exchange_run: str | None = None
    """Folder of an earlier `mmace-sim exchange`, or `uppasd` or `vampire`: the paths are folders of that code. None:
    exchange is computed."""
    cutoff: float = Field(default=6.0, gt=0)
    """Largest distance of computed exchange, in Å."""
    magmoms: Literal["relaxed", "fixed"] = "relaxed"
    """Lengths of the moments relax in the given order first, or stay as in the file."""
    lengths: Literal["fixed", "variable"] = "fixed"
    """Lengths of the moments while sampling (direct)."""
    lattice: Literal["fixed", "moving", "free"] = "fixed"
    """Atoms stay, are sampled, or are sampled with the volume (direct)."""
    moves: Literal["hybrid", "local"] = "hybrid"
    """All moments at once by gradients, or single moments (direct)."""
    n_steps: int = Field(default=10, ge=1)
    """Leapfrog steps of a hybrid move."""
    quantum: bool = False
    """Give T_C of quantum spins, (S + 1)/S times the classical one, as well."""
    figures: bool = True
    """Draw M, susceptibility, heat capacity and cumulant."""

    @field_validator("temperatures", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        """``100:1500:100`` includes both ends."""
        if not isinstance(value, str):
            return value
        if ":" not in value:
            return value.split(",")
        first, last, step = (float(part) for part in value.split(":"))
        if not (step > 0 and last >= first):
            raise ValueError("expected FIRST:LAST:STEP with LAST above FIRST and a positive STEP")
        return np.arange(first, last + 1e-6 * step, step).tolist()

    @field_validator("temperatures")
    @classmethod
    def _positive(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and min(value) <= 0:
            raise ValueError("temperatures must be above 0 K")
        return value

    @field_validator("sizes", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("sizes")
    @classmethod
    def _whole(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and min(value) < 1:
            raise ValueError("sizes must be 1 or more")
        return value


def run_curie(config: CurieConfig, *, resume: bool, force: bool, quiet: bool) -> int:
    """Sample everything that a configuration names.

    Args:
        config: The merged configuration.
        resume: Go on with an interrupted run.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0, or 3 if a structure failed or is not in equilibrium.

    Raises:
        ConfigError: If there are no structures, or no exchange for one.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    known, given = None, {}
    if config.exchange_run in SPIN_CODES:
        items, spins = read_spin_models(
            config.exchange_run, config.paths, pick_device(config.device, config.threads)
        )
        known, given = spins.models, {"model": spins, "build": lambda _: items}
        _check_spins(config, items)
    elif config.exchange_run is not None:
        known = read_exchange_run(Path(config.exchange_run))
    with open_run("curie", config, resume=resume, force=force, **given) as run:
        for part in run.parts():
            _sample(part, config, known, quiet=quiet)
        entries = run.stored_entries()
        rows = [entry | {"n_spins": max(entry.get("n_spins") or [0]) or None} for entry in entries]
        code = run.finish(entries, columns=CURIE_COLUMNS, units=CURIE_UNITS, rows=rows)
    if not quiet:
        names = [f"{folder.name}/" for folder in run.folders.values()]
        print_run(_table(entries[:MAX_ROWS]), entries, run.folder, names[:3], n_resumed=run.n_resumed)
    return code


def _check_spins(config: CurieConfig, items: list[LoadedStructure | FailedStructure]) -> None:
    if config.method != "heisenberg":
        raise ConfigError(
            f"--from {config.exchange_run} reads exchange constants: it needs --method heisenberg."
        )
    if not items:
        raise ConfigError("no folders. Name those that hold the files of the spin models.")


def _sample(
    run: PropertyRun, config: CurieConfig, known: dict[str, SpinHamiltonian] | None, *, quiet: bool
) -> None:
    """Sample what is not finished; a structure that an earlier run began goes on from its last block of sweeps."""
    fields = (
        "method", "temperatures", "sizes", "seed", "magmoms", "cutoff", "lengths", "lattice", "moves", "n_steps",
        "quantum",
    )  # fmt: skip
    workflow = Curie(
        run.model,
        n_sweeps=config.sweeps,
        n_equilibration=config.equilibration,
        n_over=config.over_relaxation,
        n_replicas=config.replicas,
        **{name: getattr(config, name) for name in fields},
    )
    pending, folders = run.pending, run.folders
    spin_models = None if known is None else _models_of(run, known)

    def store(index: int, result: CurieResult) -> None:
        item = pending[index]

        def write() -> tuple[dict[str, Any], None]:
            write_curie(result, folders[item.name], figures=config.figures)
            return curie_entry(item, result), None

        run.record(item, write)

    with progress("Sampling", planned_sweeps(workflow, len(pending)), "sweeps", quiet=quiet) as advance:
        workflow.run(
            [item.atoms for item in pending],
            names=[folders[item.name].name for item in pending],
            spin_models=spin_models,
            folder=run.folder,
            on_sweeps=advance,
            on_finished=store,
        )


def _models_of(run: PropertyRun, known: dict[str, SpinHamiltonian]) -> list[SpinHamiltonian]:
    missing = [item.name for item in (run.whole or run).structures if item.name not in known]
    if missing:
        raise ConfigError(
            f"{run.config.exchange_run}: no exchange of {', '.join(missing)}; it has {', '.join(known) or 'none'}."
        )
    return [known[item.name] for item in run.pending]


def _table(entries: list[dict[str, Any]]) -> Table:
    """One line for each structure, temperatures in K with the error of the last digits."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    headings = (
        "file", "method", "spins", "crossing\nK", "χ peak\nK", "power law\nK", "β", "mean field\nK", "status"
    )  # fmt: skip
    for heading in headings:
        table.add_column(
            heading, justify="left" if heading in ("file", "method") else "right", overflow="fold"
        )
    for entry in entries:
        last = [(entry.get(key) or [{}])[-1] for key in ("binder_crossings", "susceptibility_peaks")]
        cells = [entry["name"], entry.get("method", ""), str((entry.get("n_spins") or ["–"])[-1])]
        cells += [_with_error(value, "{:.0f}") for value in (*last, entry.get("power_law") or {})]
        cells += [_with_error(entry.get("exponent") or {}, "{:.2f}")]
        cells += [fixed(entry.get("mean_field_temperature"), "{:.0f}"), entry["status"].replace("_", " ")]
        table.add_row(*[Text(cell) for cell in cells], style="" if entry["status"] == "converged" else "red")
    return table


def _with_error(value: dict[str, Any], style: str) -> str:
    if value.get("mean") is None:
        return "–"
    return f"{style.format(value['mean'])} ± {style.format(value['error'])}"

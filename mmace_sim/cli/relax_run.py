"""One run of ``mmace-sim relax``: read, check, relax, write, show."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import typer
from ase import Atoms

from mmace_sim.cli.config import RelaxConfig
from mmace_sim.cli.options import quiet_imports
from mmace_sim.cli.resumable import item_key, open_resumable
from mmace_sim.cli.run_dir import now
from mmace_sim.cli.runs import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    load_run_model,
    prepare_structures,
    progress,
)
from mmace_sim.cli.tables import print_results
from mmace_sim.workflows.journal import Journal, atoms_from_record, atoms_to_record
from mmace_sim.workflows.output import (
    GOOD,
    UNITS,
    failed_entry,
    output_atoms,
    summary_entry,
    versions,
    write_structures,
    write_summary,
)
from mmace_sim.workflows.report import write_report
from mmace_sim.workflows.structures import FailedStructure, LoadedStructure

_log = logging.getLogger(__name__)


@dataclass
class _Run:
    """What a run knows: its inputs, and what is finished."""

    command: ClassVar[str] = "relax"

    config: RelaxConfig
    folder: Path
    model: Any
    items: list[LoadedStructure | FailedStructure]
    created: str
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    n_resumed: int = 0

    @property
    def pending(self) -> list[LoadedStructure]:
        """Good structures that are not finished."""
        good = (item for item in self.items if isinstance(item, LoadedStructure))
        return [item for item in good if item_key(item) not in self.records]


def run_relax(config: RelaxConfig, *, resume: bool, force: bool, quiet: bool) -> int:
    """Relax everything that a configuration names.

    Args:
        config: The merged configuration.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0; 3 if a structure failed or did not converge; 130 if interrupted from the keyboard.

    Raises:
        ConfigError: If there is nothing to relax.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    with quiet_imports():
        model = load_run_model(config)
    items = prepare_structures(config, model.elements)
    run = _Run(config, Path(config.output), model, items, now())
    with open_resumable(run, resume=resume, force=force) as (journal, run.records):
        run.n_resumed = len(run.records)
        if run.n_resumed:
            _log.info("resumed: %d structures were finished before", run.n_resumed)
        try:
            _relax_pending(run, journal, quiet=quiet)
        except KeyboardInterrupt:
            n_good = sum(isinstance(item, LoadedStructure) for item in items)
            typer.echo(
                f"Interrupted. {len(run.records)} of {n_good} structures are finished and safe in {run.folder}: "
                "run the same command with --resume to go on.",
                err=True,
            )
            return EXIT_INTERRUPTED
        entries = _write_results(run)
    if not quiet:
        print_results(entries, run.folder, n_resumed=run.n_resumed)
    return EXIT_OK if all(entry["status"] in GOOD for entry in entries) else EXIT_INCOMPLETE


def _relax_pending(run: _Run, journal: Journal, *, quiet: bool) -> None:
    """Relax what is not finished; each structure is on disk as soon as it is finished."""
    pending = run.pending
    if not pending:
        return
    import torch

    from mmace_sim.workflows.relax import relax

    config = run.config
    with progress("Relaxing", len(pending), "structures", quiet=quiet) as advance:

        def step(state: Any) -> None:
            advance(0, detail=f"step {state.step}, {state.n_active} in the batch")

        def store(index: int, result: Any) -> None:
            item = pending[index]
            record = _record(item, result)
            journal.append(record)
            run.records[item_key(item)] = record
            _log.info("%s: %s after %d steps %s", item.name, result.status, result.steps, result.message)
            advance()

        relax(
            [item.atoms for item in pending],
            model=run.model,
            relax_cell=config.relax_cell,
            magmoms=config.magmoms,
            fmax=config.fmax,
            stress_tol=config.stress_tol,
            magforce_tol=config.magforce_tol,
            max_steps=config.max_steps,
            collinear=config.collinear,
            fix_magnitude=config.fix_magnitude,
            device=next(run.model.parameters()).device,
            dtype=getattr(torch, config.dtype),
            max_batch_atoms=config.max_batch_atoms,
            on_finished=store,
            on_step=step,
        )


def _record(item: LoadedStructure, result: Any) -> dict[str, Any]:
    """Line of the journal; a structure that failed has no relaxed atoms."""
    if str(result.status) == "failed":
        return {"key": item_key(item), "entry": failed_entry(item, result.message), "relaxed": None}
    entry = summary_entry(item, result)
    usable = str(result.status) != "non_finite"
    return {
        "key": item_key(item),
        "entry": entry,
        "relaxed": atoms_to_record(output_atoms(item, result)) if usable else None,
    }


def _write_results(run: _Run) -> list[dict[str, Any]]:
    """Write summary and structures in the order of the input."""
    entries: list[dict[str, Any]] = []
    relaxed: list[Atoms] = []
    for item in run.items:
        if isinstance(item, FailedStructure):
            entries.append(failed_entry(item))
            continue
        record = run.records[item_key(item)]
        entries.append(record["entry"])
        if record["relaxed"]:
            relaxed.append(atoms_from_record(record["relaxed"]))
    metadata = {key: value for key, value in run.model.metadata.items() if key != "config"}
    summary = {
        "command": run.command,
        "created": run.created,
        "finished": now(),
        "versions": versions(),
        "units": UNITS,
        "config": run.config.model_dump(mode="json"),
        "model": {"name": run.config.model, "elements": list(run.model.elements)} | metadata,
        "structures": entries,
    }
    write_summary(run.folder, summary)
    for note in write_structures(run.folder, relaxed, run.config.write):
        _log.warning("%s", note)
    good = sum(entry["status"] in GOOD for entry in entries)
    _log.info("finished: %d of %d converged", good, len(entries))
    if run.config.report:
        write_report(run.folder)
    return entries

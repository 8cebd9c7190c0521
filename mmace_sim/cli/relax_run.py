"""One run of ``mmace-sim relax``: read, check, relax, write, show."""

from typing import Any

from ase import Atoms

from mmace_sim.cli.config import RelaxConfig
from mmace_sim.cli.resumable import item_key
from mmace_sim.cli.runs import PropertyRun, open_run, progress, write_stored
from mmace_sim.cli.tables import print_results
from mmace_sim.engine.output import CSV_COLUMNS, UNITS, failed_entry, output_atoms, summary_entry
from mmace_sim.io.collection import LoadedStructure


def run_relax(config: RelaxConfig, *, resume: bool, force: bool, quiet: bool) -> int:
    """Relax everything that a configuration names.

    Args:
        config: The merged configuration.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0; 3 if a structure failed or did not converge.

    Raises:
        ConfigError: If there is nothing to relax.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
        typer.Exit: 128 plus the number of the signal that stops it.
    """
    with open_run("relax", config, resume=resume, force=force) as run:
        for part in run.parts():
            if part.pending:
                _relax_pending(part, config, quiet=quiet)
        entries = run.stored_entries(failed_entry)
        code = run.finish(
            entries,
            columns=CSV_COLUMNS,
            units=UNITS,
            write=lambda: write_stored(run, entries, config.write),
        )
    if not quiet:
        print_results(entries, run.folder, n_resumed=run.n_resumed)
    return code


def _relax_pending(run: PropertyRun, config: RelaxConfig, *, quiet: bool) -> None:
    """Relax what is not finished; each structure is on disk as soon as it is finished."""
    import torch

    from mmace_sim.engine.checkpoint import BatchCheckpoint
    from mmace_sim.engine.journal import CHECKPOINT, fingerprint
    from mmace_sim.properties.relax.structures import relax

    pending = run.pending
    with progress("Relaxing", len(pending), "structures", quiet=quiet) as advance:

        def step(state: Any) -> None:
            advance(0, detail=f"step {state.step}, {state.n_active} in the batch")

        def store(index: int, result: Any) -> None:
            item, status = pending[index], str(result.status)
            if status in ("failed", "runaway"):  # has no relaxed atoms
                ended = {"status": status, "steps": result.steps}
                run.store(item, failed_entry(item, result.message) | ended)
            else:
                run.record(item, lambda: _outcome(item, result), failed=failed_entry)
            advance()

        keys = [f"{item_key(item)} {fingerprint(item.atoms)}" for item in pending]
        checkpoint = BatchCheckpoint(run.folder / CHECKPOINT, run.identity, keys)
        relax(
            [item.atoms for item in pending],
            model=run.model,
            relax_cell=config.relax_cell,
            cell_mask=config.cell_mask,
            magmoms=config.magmoms,
            fmax=config.fmax,
            stress_tol=config.stress_tol,
            magforce_tol=config.magforce_tol,
            max_steps=config.max_steps,
            collinear=config.collinear,
            fix_magnitude=config.fix_magnitude,
            stability=config.stability,
            perturb=config.perturb,
            device=next(run.model.parameters()).device,
            dtype=getattr(torch, config.dtype),
            max_batch_atoms=config.max_batch_atoms,
            on_finished=store,
            on_step=step,
            checkpoint=checkpoint,
        )
    checkpoint.remove()


def _outcome(item: LoadedStructure, result: Any) -> tuple[dict[str, Any], Atoms | None]:
    """Entry and relaxed atoms of a structure, which has none if its numbers are not finite."""
    usable = str(result.status) != "non_finite"
    return summary_entry(item, result), output_atoms(item, result) if usable else None

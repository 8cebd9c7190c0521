"""One run of ``mmace-sim phonons``: compute, write each crystal as soon as it is finished, show."""

from typing import Any

import torch
from ase import Atoms
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.phonons_config import PhononsConfig
from mmace_sim.cli.runs import PropertyRun, open_run, progress
from mmace_sim.cli.tables import MAX_ROWS, print_run
from mmace_sim.engine.declaration import GOOD, fixed
from mmace_sim.properties.phonons import PhononResult, Phonons
from mmace_sim.properties.phonons.output import (
    PHONON_COLUMNS,
    PHONON_UNITS,
    phonon_entry,
    write_phonons,
)
from mmace_sim.properties.relax.output import output_atoms, write_stored
from mmace_sim.properties.relax.relaxation import Status

_COLUMNS: tuple[tuple[str, str], ...] = (
    ("file", "left"), ("formula", "left"), ("|m|\nμB", "left"), ("order", "left"), ("atoms in\nsupercell", "right"),
    ("displace-\nments", "right"), ("lowest\nTHz", "right"), ("highest\nTHz", "right"), ("shift by\nmoments", "right"),
    ("ZPE\nmeV/atom", "right"), ("status", "left"),
)  # fmt: skip


def run_phonons(config: PhononsConfig, *, plots: bool, resume: bool, force: bool, quiet: bool) -> int:
    """Compute the phonons of everything that a configuration names.

    Args:
        config: The merged configuration.
        plots: Draw bands and density of states.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0; 3 if a structure failed or did not converge.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    with open_run("phonons", config, resume=resume, force=force) as run:
        for part in run.parts():
            _compute(part, config, plots=plots, quiet=quiet)
        entries = run.stored_entries()
        code = run.finish(
            entries, columns=PHONON_COLUMNS, units=PHONON_UNITS, write=lambda: write_stored(run, entries)
        )
    if not quiet:
        print_run(
            phonons_table(entries[:MAX_ROWS]),
            entries,
            run.folder,
            ("relaxed.extxyz", "NAME/band.yaml, ..."),
            n_resumed=run.n_resumed,
        )
    return code


def _compute(run: PropertyRun, config: PhononsConfig, *, plots: bool, quiet: bool) -> None:
    """Phonons of what is not finished; each structure is on disk as soon as it is finished."""
    pending, folders = run.pending, run.folders
    workflow = Phonons(
        run.model,
        relax=config.relax,
        magmoms=config.magmoms,
        min_length=config.min_length,
        supercell=config.supercell,
        displacement=config.displacement,
        symprec=config.symprec,
        fmax=config.fmax,
        stress_tol=config.stress_tol,
        magforce_tol=config.magforce_tol,
        max_steps=config.max_steps,
        mesh=config.mesh,
        temperatures=(0.0, config.t_max, config.t_step),
        device=next(run.model.parameters()).device,
        dtype=getattr(torch, config.dtype),
        max_batch_atoms=config.max_batch_atoms,
    )
    with progress("Phonons", len(pending), "structures", quiet=quiet) as advance:

        def store(index: int, result: PhononResult) -> None:
            item = pending[index]

            def write() -> tuple[dict[str, Any], Atoms | None]:
                if result.path is None:
                    return phonon_entry(item, result), None
                write_phonons(folders[item.name], result, plots=plots, formats=config.write)
                return phonon_entry(item, result), output_atoms(item, result.crystal)

            run.record(item, write)
            advance()

        workflow.run([item.atoms for item in pending], on_finished=store)


def phonons_table(entries: list[dict[str, Any]]) -> Table:
    """One row for each crystal.

    Args:
        entries: Entries of ``summary.json``.

    Returns:
        A rich table.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading, side in _COLUMNS:
        table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    for entry in entries:
        good = entry["status"] in GOOD and entry.get("stable")
        table.add_row(*[Text(cell) for cell in _row(entry)], style="" if good else "red")
    return table


def _row(entry: dict[str, Any]) -> list[str]:
    species, energy = entry.get("magmom_by_species"), entry.get("zero_point_energy")
    lowest = entry.get("min_frequency")
    unstable = entry["status"] == Status.CONVERGED and not entry.get("stable")
    return [
        entry["name"],
        entry["formula"] or "–",
        " ".join(f"{symbol} {value:.2f}" for symbol, value in species.items()) if species else "–",
        entry.get("magnetic_order_final") or "–",
        fixed(entry.get("n_atoms_supercell"), "{}"),
        fixed(entry.get("n_displacements"), "{}"),
        fixed(None if lowest is None else round(lowest, 2) + 0.0, "{:.2f}"),
        fixed(entry.get("max_frequency"), "{:.2f}"),
        fixed(entry.get("shift_by_moments"), "{:+.2f}"),
        fixed(None if energy is None else 1000 * energy, "{:.1f}"),
        "unstable" if unstable else entry["status"].replace("_", " "),
    ]

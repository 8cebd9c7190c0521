"""Runs that can be resumed: a journal that says what the run is, and what of it is finished."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmace_sim.cli.config import NOT_PHYSICS, dump_config
from mmace_sim.cli.run_dir import finished_records, log_start, log_to, prepare_folder
from mmace_sim.workflows.journal import FILE_NAME, Journal, fingerprint, weights_hash
from mmace_sim.workflows.output import versions, write_text
from mmace_sim.workflows.structures import FailedStructure, LoadedStructure


@contextmanager
def open_resumable(
    run: Any, *, resume: bool, force: bool, may_differ: frozenset[str] = NOT_PHYSICS
) -> Iterator[tuple[Journal, dict[str, dict[str, Any]]]]:
    """Open the folder of a run with its journal and log, and write its configuration.

    Args:
        run: A run, with command, config, folder, model, items and created.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        may_differ: Fields of the configuration that may differ when a run is resumed.

    Yields:
        The journal, and the records of what is finished by `item_key`.

    Raises:
        OutputError: If the folder cannot be used, or holds another run.
    """
    resumed = prepare_folder(run.folder, resume=resume, force=force)
    header = _header(run, may_differ)
    records = finished_records(run.folder, header) if resumed else {}
    with Journal(run.folder / FILE_NAME) as journal, log_to(run.folder / "log.txt"):
        if not (resumed and (run.folder / FILE_NAME).stat().st_size):
            journal.append(header)
        write_text(run.folder / "config.yaml", dump_config(run.config))
        log_start(run.command, run.config, run.items)
        yield journal, records


def item_key(item: LoadedStructure | FailedStructure) -> str:
    """What a structure is called in the journal.

    Args:
        item: What was read.
    """
    return f"{item.file}#{item.index}"


def _header(run: Any, may_differ: frozenset[str]) -> dict[str, Any]:
    """First line of the journal: what a resumed run must agree with."""
    config = {
        key: value for key, value in run.config.model_dump(mode="json").items() if key not in may_differ
    }
    config["weights of the model"] = weights_hash(run.model)
    inputs = {
        item_key(item): fingerprint(item.atoms) if isinstance(item, LoadedStructure) else "unusable"
        for item in run.items
    }
    return {
        "command": run.command,
        "created": run.created,
        "versions": versions(),
        "config": config,
        "inputs": inputs,
    }

"""Runs that can be resumed: a journal that says what the run is, and what of it is finished."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mmace_sim.base.settings import dump_settings
from mmace_sim.engine.folder import finished_records, log_start, log_to, open_folder
from mmace_sim.engine.inputs import run_inputs
from mmace_sim.engine.journal import FILE_NAME, Journal, fingerprint, weights_hash
from mmace_sim.engine.output import versions
from mmace_sim.engine.settings import NOT_PHYSICS
from mmace_sim.files import Manifest, write_text
from mmace_sim.io.collection import FailedStructure, LoadedStructure


@contextmanager
def open_resumable(
    run: Any, *, resume: bool, force: bool, may_differ: frozenset[str] = NOT_PHYSICS
) -> Iterator[Manifest]:
    """Open the folder of a run with its log; when it begins to write, its journal and its configuration.

    Args:
        run: A run, with command, config, folder, model, items and created; its `records` become what is finished by
            `item_key`, its `identity` tells settings and model, and its `journal` is opened when it begins.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        may_differ: Fields of the configuration that may differ when a run is resumed.

    Yields:
        The list of files of the run.

    Raises:
        OutputError: If the folder cannot be used, or holds another run.
    """
    header = _header(run, may_differ)
    run.identity = hashlib.sha256(json.dumps(header["config"], sort_keys=True).encode()).hexdigest()
    folder = open_folder(
        run.folder, run.command, resume=resume, force=force, inputs=run_inputs(run.settings, run.items)
    )
    with folder as (manifest, resumed), ExitStack() as closing:
        run.records = finished_records(run.folder, header) if resumed else {}
        closing.enter_context(log_to(run.folder / "log.txt"))

        def begin() -> None:
            run.journal = closing.enter_context(Journal(run.folder / FILE_NAME))
            if not (run.records or (resumed and (run.folder / FILE_NAME).stat().st_size)):
                run.journal.append(header)
            write_text(run.folder / "config.yaml", dump_settings(run.settings))

        manifest.on_begin(begin)
        log_start(run.command, run.settings, run.items, run.skipped)
        yield manifest


def item_key(item: LoadedStructure | FailedStructure) -> str:
    """What a structure is called in the journal.

    Args:
        item: What was read.
    """
    return f"{item.file}#{item.index}"


def _header(run: Any, may_differ: frozenset[str]) -> dict[str, Any]:
    """First line of the journal: what a resumed run must agree with."""
    config = {
        key: value for key, value in run.settings.model_dump(mode="json").items() if key not in may_differ
    }
    config["weights of the model"] = {name: weights_hash(model) for name, model in run.models.items()}
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

"""Runs that can be resumed: a journal that says what the run is, and what of it is finished."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmace_sim.base.settings import Settings, dump_settings
from mmace_sim.engine.folder import finished_records, log_start, log_to, now, open_folder
from mmace_sim.engine.inputs import run_inputs
from mmace_sim.engine.journal import CHECKPOINT, FILE_NAME, Journal, read_journal, weights_hash
from mmace_sim.engine.output import versions
from mmace_sim.engine.settings import NOT_PHYSICS
from mmace_sim.errors import OutputError
from mmace_sim.files import Manifest, write_text
from mmace_sim.io.collection import FailedStructure, LoadedStructure

if TYPE_CHECKING:
    from mmace_sim.engine.run import Run


@dataclass
class Task:
    """A run that is no property: its results are lines of the journal, by names of its own.

    Attributes:
        command: Name of the command.
        settings: Its settings.
        folder: Folder of the run.
        identities: A hash of each input.
        models: Models whose weights must be the same when it is resumed.
        total: How many results there will be, if that is not the number of inputs.
        created: When it began.
        records: What is finished.
        identity: Hash of settings and models.
        journal: Where it is written, once the run has begun.
        manifest: List of its files.
    """

    command: str
    settings: Settings
    folder: Path
    identities: dict[str, str]
    models: dict[str, Any] = field(default_factory=dict)
    total: int | None = None
    created: str = field(default_factory=now)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    identity: str = ""
    journal: Journal | None = None
    manifest: Manifest | None = None

    @property
    def reads(self) -> Sequence[Path]:
        """Files that it reads."""
        return run_inputs(self.settings)

    def announce(self) -> None:
        """Write to the log what begins."""
        log_start(self.command, self.settings, ())

    def store(self, key: str, record: dict[str, Any]) -> None:
        """Keep a result.

        Args:
            key: Its name.
            record: Plain JSON.

        Raises:
            OutputError: If the disk is full.
        """
        if self.manifest is not None:
            self.manifest.begin()
        if self.journal is not None:
            self.journal.append({"key": key, "at": round(time.time(), 2)} | record)
        self.records[key] = record


def kept(run: "Task | Run", total: int, what: str, *, under_way: bool = False) -> str:
    """What is safe if a run ends now, and how to go on.

    Args:
        run: The run.
        total: How many results there will be.
        what: Of what.
        under_way: Whether those under way are kept too.
    """
    also = ", those under way are kept" if under_way else ""
    return (
        f"{len(run.records)} of {total} {what} are finished and safe in {run.folder}{also}: run the same command "
        "with --resume to go on."
    )


@contextmanager
def open_resumable(
    run: "Task | Run", *, resume: bool, force: bool, may_differ: frozenset[str] = NOT_PHYSICS
) -> Iterator[Manifest]:
    """Open the folder of a run with its log; when it begins to write, its journal and its configuration.

    Args:
        run: A run; its `records` become what is finished, its `identity` tells settings and model, and its `journal`
            is opened when it begins.
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
    folder = open_folder(run.folder, run.command, resume=resume, force=force, inputs=run.reads)
    with folder as (manifest, resumed), ExitStack() as closing:
        run.records = finished_records(run.folder, header) if resumed else {}
        saved = _saved_by_workers(manifest.holders, run.identity, run.records) if resumed else {}
        run.records |= saved
        closing.enter_context(log_to(run.folder / "log.txt"))

        def begin() -> None:
            run.journal = closing.enter_context(Journal(run.folder / FILE_NAME))
            if not (len(run.records) > len(saved) or (resumed and (run.folder / FILE_NAME).stat().st_size)):
                run.journal.append(header)
            for record in saved.values():
                run.journal.append(record)
            for own in manifest.holders if resumed else ():
                if (own / CHECKPOINT).is_file():  # of what a worker had under way
                    manifest.place(own / CHECKPOINT, run.folder / f"{own.name[1:]}-{CHECKPOINT}")
            write_text(run.folder / "config.yaml", dump_settings(run.settings))

        manifest.on_begin(begin)
        run.announce()
        yield manifest


def _saved_by_workers(
    folders: Iterable[Path], identity: str, known: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Records by key of what workers finished that the process which started them did not live to take over."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        try:
            first, *records = read_journal(folder / FILE_NAME)
        except (OutputError, ValueError):  # of no worker, or damaged: computed again
            continue
        if first.get("identity") == identity:
            found |= {record["key"]: record for record in records if record["key"] not in known}
    return found


def item_key(item: LoadedStructure | FailedStructure) -> str:
    """What a structure is called in the journal.

    Args:
        item: What was read.
    """
    return f"{item.file}#{item.index}"


def _header(run: "Task | Run", may_differ: frozenset[str]) -> dict[str, Any]:
    """First line of the journal: what a resumed run must agree with."""
    config = {
        key: value for key, value in run.settings.model_dump(mode="json").items() if key not in may_differ
    }
    for section, _, key in (name.partition(".") for name in may_differ if "." in name):
        config[section] = {k: v for k, v in config[section].items() if k != key}
    config["weights of the model"] = {name: weights_hash(model) for name, model in run.models.items()}
    total = run.total if isinstance(run, Task) else None
    return {
        "command": run.command,
        "created": run.created,
        "versions": versions(),
        "config": config,
        "inputs": run.identities,
    } | ({} if total is None else {"total": total})

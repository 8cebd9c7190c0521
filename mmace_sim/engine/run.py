"""A run of a property under way: its structures and models, what is finished, and where that is kept.

`Run.parts` is the seam for other executors: a part is a set of structures, one model and the settings; `record_of` is
what becomes of a result, wherever it was computed, and `Run.keep` takes it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ase import Atoms

from mmace_sim.base.text import say
from mmace_sim.engine.checkpoint import kept_checkpoints
from mmace_sim.engine.computation import Computation
from mmace_sim.engine.declaration import Property
from mmace_sim.engine.folder import log_start, now
from mmace_sim.engine.inputs import described, prepare_run, run_inputs
from mmace_sim.engine.journal import CHECKPOINT, Journal, atoms_from_record, fingerprint
from mmace_sim.engine.output import entry_head, versions
from mmace_sim.engine.records import decode
from mmace_sim.engine.resume import item_key, kept
from mmace_sim.engine.settings import RunSettings
from mmace_sim.errors import OutputError
from mmace_sim.files import Manifest
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.io.spans import Span
from mmace_sim.io.writing import file_names
from mmace_sim.structures.domain import domain_entry

_log = logging.getLogger(__name__)


@dataclass
class Run:
    """A run of a property under way.

    Attributes:
        declared: The property.
        settings: Its settings.
        folder: Folder of the run.
        models: The models on their device, by name.
        items: Structures and failures in the order of the files.
        created: When the run began.
        skipped: Files of folders that hold no structure.
        records: What is finished, by `item_key`.
        n_resumed: How many of them an earlier run had finished.
        identity: Hash of settings and model.
        journal: Where they are written, once the run has begun.
        manifest: List of its files.
        notes: What went wrong with files that the results do not depend on.
        whole: The run that this one is a part of, see `parts`.
        scratch: Where what is under way is kept; None: in the folder.
        places: Folder of each structure, by its name; None: by its name in the folder.
        is_volume: Whether it is a part of a large run.
        left: What others had under way; None: what lies in the folder.
    """

    declared: Property
    settings: RunSettings
    folder: Path
    models: dict[str, Any]
    items: list[LoadedStructure | FailedStructure]
    created: str = field(default_factory=now)
    skipped: list[FailedStructure] = field(default_factory=list)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    n_resumed: int = 0
    identity: str = ""
    journal: Journal | None = None
    manifest: Manifest | None = None
    notes: list[str] = field(default_factory=list)
    whole: "Run | None" = None
    scratch: Path | None = None
    places: dict[str, Path] | None = None
    is_volume: bool = False
    left: Sequence[Path] | None = None

    @classmethod
    def read(cls, computation: Computation, spans: Sequence[Span] | None = None) -> "Run":
        """Load the models and read the structures.

        Args:
            computation: What will be computed.
            spans: Where the structures are, of a volume.

        Raises:
            ConfigError: If there are no structures.
            ModelFileError: If a model cannot be loaded.
            UnsupportedOptionError: If the model or the machine lacks what an option asks for.
        """
        skipped: list[FailedStructure] = []
        settings, is_volume = computation.settings, spans is not None
        models, items = computation.read() or prepare_run(
            settings, build=computation.build, admit=computation.admit, skipped=skipped, spans=spans
        )
        told = computation.declared, settings, Path(settings.output)
        return cls(*told, models, items, skipped=skipped, is_volume=is_volume)

    @property
    def command(self) -> str:
        """Name of the command."""
        return self.declared.name

    @property
    def identities(self) -> dict[str, str]:
        """A hash of each structure."""
        return {
            item_key(item): fingerprint(item.atoms) if isinstance(item, LoadedStructure) else "unusable"
            for item in self.items
        }

    @property
    def reads(self) -> Sequence[Path]:
        """Files that it reads."""
        return run_inputs(self.settings, self.items)

    def announce(self) -> None:
        """Write to the log what begins."""
        log_start(self.command, self.settings, self.items, self.skipped)

    @property
    def checkpoints(self) -> Sequence[Path]:
        """What an earlier run, or a worker, had under way, the newest last."""
        return kept_checkpoints(self.folder) if self.left is None else self.left

    @property
    def model(self) -> Any:
        """The model, the only one of a part."""
        return next(iter(self.models.values()))

    def parts(self) -> Iterator["Run"]:
        """The run for each of its models: same folder and records, with the structures of that model alone."""
        for name in dict.fromkeys(item.model for item in self.structures):
            items: list[LoadedStructure | FailedStructure] = [x for x in self.structures if x.model == name]
            yield replace(self, models={name: self.models[name]}, items=items, whole=self)

    @property
    def structures(self) -> list[LoadedStructure]:
        """Structures that can be computed."""
        return [item for item in self.items if isinstance(item, LoadedStructure)]

    @property
    def pending(self) -> list[LoadedStructure]:
        """Those of them that are not finished."""
        return [item for item in self.structures if item_key(item) not in self.records]

    def kept(self) -> str:
        """What is safe if the run ends now, and how to go on."""
        under_way = any((*self.folder.glob(CHECKPOINT), *self.folder.glob(f"*/{CHECKPOINT}")))
        return kept(self, len(self.structures), "structures", under_way=under_way)

    @cached_property
    def folders(self) -> dict[str, Path]:
        """Folder of each structure, by its name, for a command that writes one each."""
        if self.whole is not None:
            return self.whole.folders
        if self.places is not None:
            return self.places
        names = [item.name for item in self.structures]
        return {name: self.folder / file for name, file in zip(names, file_names(names), strict=True)}

    def keep(self, record: dict[str, Any]) -> None:
        """Keep what was computed for a structure, so that a killed run does not lose it.

        Args:
            record: From `record_of`.

        Raises:
            OutputError: If the disk is full.
        """
        whole = self.whole or self
        if whole.manifest is not None:
            whole.manifest.begin()
        if whole.journal is not None:
            whole.journal.append({"at": round(time.time(), 2)} | record)
        whole.records[record["key"]] = record
        entry = record["entry"]
        _log.info("%s: %s %s", entry["name"], entry["status"], entry["message"])

    def stored_entries(
        self, failed: Callable[[FailedStructure], dict[str, Any]] = entry_head
    ) -> list[dict[str, Any]]:
        """Entries of the summary in the order of the input.

        Args:
            failed: Makes the entry of a structure that cannot be used.

        Returns:
            One entry for each item: what was given to `keep`, by this run or the one that it goes on with.
        """
        nothing = domain_entry(None, None)
        return [
            failed(x) | nothing if isinstance(x, FailedStructure) else self.records[item_key(x)]["entry"]
            for x in self.items
        ]

    def stored_atoms(self) -> list[Atoms]:
        """Structures that were given to `keep`, in the order of the input."""
        records = (self.records[item_key(item)]["atoms"] for item in self.structures)
        return [atoms_from_record(record) for record in records if record is not None]

    def stored_results(self, kind: type) -> list[tuple[LoadedStructure, Any]]:
        """Structures and their results, as far as they have some, in the order of the input.

        Args:
            kind: Class of the results.
        """
        return [
            (item, decode(kind, record["result"]))
            for item in self.structures
            if "result" in (record := self.records[item_key(item)])
        ]

    def attempt(self, what: str, write: Callable[[], Any]) -> Any:
        """Write files that the results do not depend on; only a disk that cannot be written ends the run.

        Args:
            what: Which, for the message.
            write: Writes them.
        """
        try:
            return write()
        except (OSError, OutputError):
            raise
        except Exception as error:
            self.notes.append(f"{what}: {type(error).__name__}: {error}. The results are in summary.json.")
            _log.exception("%s", what)
            say(self.notes[-1])
            return None

    def summary(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Everything about the run.

        Args:
            entries: From `stored_entries`.

        Returns:
            Content of ``summary.json``; ``finished`` is None.
        """
        return {
            "command": self.command,
            "created": self.created,
            "finished": None,
            "versions": versions(),
            "units": self.declared.units,
            "config": self.settings.model_dump(mode="json"),
            "model": described(self.settings.model, self.model),
            "models": {name: described(name, model) for name, model in self.models.items()},
            "structures": entries,
            "skipped": [{"file": item.file, "message": item.message} for item in self.skipped],
        }

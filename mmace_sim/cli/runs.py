"""What the commands that are not declared as properties yet have in common."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import typer
from ase import Atoms

from mmace_sim.base.settings import dump_settings as dump_config
from mmace_sim.base.text import plain
from mmace_sim.engine.declaration import GOOD
from mmace_sim.engine.folder import log_start, log_to, now, open_folder
from mmace_sim.engine.inputs import described, prepare_run, run_inputs
from mmace_sim.engine.journal import CHECKPOINT, Journal, atoms_from_record, atoms_to_record
from mmace_sim.engine.machine import quiet_imports
from mmace_sim.engine.output import entry_head, versions, write_summary
from mmace_sim.engine.progress import progress as progress
from mmace_sim.engine.progress import says_what_is_finished
from mmace_sim.engine.resume import identities_of, item_key, open_resumable
from mmace_sim.engine.settings import RunSettings as RunConfig
from mmace_sim.errors import OutputError
from mmace_sim.files import Manifest, write_text
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.io.writing import file_names
from mmace_sim.report import write_report

EXIT_OK = 0
EXIT_INCOMPLETE = 3

_log = logging.getLogger(__name__)


@dataclass
class PropertyRun:
    """A run of a command that computes a property.

    Attributes:
        command: Name of the command.
        config: The merged configuration.
        folder: Folder of the run.
        models: The models on their device, by name.
        items: Structures and failures in the order of the files.
        created: When the run began.
        skipped: Files of folders that hold no structure.
        records: What is finished, by `item_key`, if the run can be resumed.
        n_resumed: How many of them an earlier run had finished.
        identity: Hash of settings and model, if the run can be resumed.
        journal: Where they are written, if the run can be resumed and has begun.
        manifest: List of its files.
        written: What `finish` wrote beside the summary.
        notes: What went wrong with that.
        whole: The run that this one is a part of, see `parts`.
    """

    command: str
    config: RunConfig
    folder: Path
    models: dict[str, Any]
    items: list[LoadedStructure | FailedStructure]
    created: str
    skipped: list[FailedStructure] = field(default_factory=list)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    n_resumed: int = 0
    identity: str = ""
    journal: Journal | None = None
    manifest: Manifest | None = None
    written: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    whole: "PropertyRun | None" = None

    @property
    def identities(self) -> dict[str, str]:
        """A hash of each structure."""
        return identities_of(self.items)

    @property
    def reads(self) -> Sequence[Path]:
        """Files that it reads."""
        return run_inputs(self.config, self.items)

    def announce(self) -> None:
        """Write to the log what begins."""
        log_start(self.command, self.config, self.items, self.skipped)

    @property
    def settings(self) -> Any:
        """The configuration."""
        return self.config

    @property
    def model(self) -> Any:
        """The model, the only one of a part."""
        return next(iter(self.models.values()))

    def parts(self) -> Iterator["PropertyRun"]:
        """The run for each of its models: same folder and records, with the structures of that model alone."""
        for name in dict.fromkeys(item.model for item in self.structures):
            items = [item for item in self.structures if item.model == name]
            yield replace(self, models={name: self.models[name]}, items=items, whole=self)

    def compute(self, results_of: "Callable[[PropertyRun], Sequence[Any]]") -> list[Any]:
        """Compute the structures of one model after those of another.

        Args:
            results_of: Gives the results of the structures of a part.

        Returns:
            One for each of `structures`.
        """
        parts = ((part.structures, results_of(part)) for part in self.parts())
        results = {item_key(item): r for items, found in parts for item, r in zip(items, found, strict=True)}
        return [results[item_key(item)] for item in self.structures]

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
        under_way = ", those under way are kept" if (self.folder / CHECKPOINT).is_file() else ""
        return (
            f"{len(self.records)} of {len(self.structures)} structures are finished and safe in {self.folder}"
            f"{under_way}: run the same command with --resume to go on."
        )

    @property
    def folders(self) -> dict[str, Path]:
        """Folder of each structure, by its name, for a command that writes one each."""
        names = [item.name for item in (self.whole or self).structures]
        return {name: self.folder / file for name, file in zip(names, file_names(names), strict=True)}

    def store(self, item: LoadedStructure, entry: dict[str, Any], atoms: Atoms | None = None) -> None:
        """Keep what was computed for a structure, so that a killed run does not lose it.

        Args:
            item: The structure.
            entry: Its entry of the summary.
            atoms: What it has become.

        Raises:
            OutputError: If the disk is full.
        """
        stored = None if atoms is None else atoms_to_record(atoms)
        if stored and stored["left_out"]:
            entry["notes"].append(f"left out, neither numbers nor texts: {', '.join(stored['left_out'])}")
        record = {"key": item_key(item), "entry": plain(entry), "atoms": stored}
        whole = self.whole or self
        if whole.manifest is not None:
            whole.manifest.begin()
        if whole.journal is not None:
            whole.journal.append(record)
        whole.records[record["key"]] = record
        _log.info("%s: %s %s", item.name, entry["status"], entry["message"])

    def record(
        self,
        item: LoadedStructure,
        make: Callable[[], tuple[dict[str, Any], Atoms | None]],
        failed: Callable[..., dict[str, Any]] = entry_head,
    ) -> None:
        """Write and `store` what was computed for a structure; if that raises, only this structure fails.

        Args:
            item: The structure.
            make: Writes its files; gives its entry and what it has become.
            failed: Makes the entry of a structure whose result cannot be written.

        Raises:
            OutputError: If the disk is full.
        """
        try:
            entry, atoms = make()
        except (OSError, OutputError):
            raise
        except Exception as error:
            _log.exception("%s: the result cannot be written", item.name)
            message = f"computed, but the result cannot be written: {type(error).__name__}: {error}"
            entry, atoms = failed(item, message=message), None
        self.store(item, entry, atoms)

    def stored_entries(
        self, failed: Callable[[FailedStructure], dict[str, Any]] = entry_head
    ) -> list[dict[str, Any]]:
        """Entries of the summary in the order of the input.

        Args:
            failed: Makes the entry of a structure that cannot be used.

        Returns:
            One entry for each item: what was given to `store`, by this run or the one that it goes on with.
        """
        return [
            failed(item) if isinstance(item, FailedStructure) else self.records[item_key(item)]["entry"]
            for item in self.items
        ]

    def stored_atoms(self) -> list[Atoms]:
        """Structures that were given to `store`, in the order of the input."""
        records = (self.records[item_key(item)]["atoms"] for item in self.structures)
        return [atoms_from_record(record) for record in records if record is not None]

    def entries(
        self, results: Sequence[Any], entry_of: Callable[[LoadedStructure, Any], dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Entries of the summary in the order of the input, those of unusable structures included.

        Args:
            results: One for each of `structures`.
            entry_of: Makes the entry of a structure and its result.

        Returns:
            One entry for each item.
        """
        rest = iter(results)
        return [
            self._entry(item, next(rest), entry_of) if isinstance(item, LoadedStructure) else entry_head(item)
            for item in self.items
        ]

    def _entry(
        self, item: LoadedStructure, result: Any, entry_of: Callable[[LoadedStructure, Any], dict[str, Any]]
    ) -> dict[str, Any]:
        try:
            return entry_of(item, result)
        except (OSError, OutputError):
            raise
        except Exception as error:
            _log.exception("%s: the result cannot be summarised", item.name)
            message = f"computed, but the result cannot be summarised: {type(error).__name__}: {error}"
            return entry_head(item, message=message)

    def conclude(
        self,
        results: Sequence[Any],
        entry_of: Callable[[LoadedStructure, Any], dict[str, Any]],
        rows_of: Callable[[dict[str, Any]], Iterable[dict[str, Any]]],
        write: Callable[[list[tuple[LoadedStructure, Any]]], list[str]],
        **tables: Any,
    ) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
        """`finish` a run whose results are all there, with several lines of the table for each structure.

        Args:
            results: From `compute`.
            entry_of: Makes the entry of a structure and its result.
            rows_of: Makes the lines of an entry.
            write: Writes further files from the structures and their results; gives their names.
            **tables: Both `columns` and `units` of `finish`.

        Returns:
            Exit code, lines of the table, and entries.
        """
        entries = self.entries(results, entry_of)
        rows = [row for entry in entries for row in rows_of(entry)]
        computed = list(zip(self.structures, results, strict=True))
        return self.finish(entries, rows=rows, write=lambda: write(computed), **tables), rows, entries

    def finish(
        self,
        entries: list[dict[str, Any]],
        *,
        columns: Sequence[str],
        units: Mapping[str, str],
        rows: Sequence[dict[str, Any]] | None = None,
        write: Callable[[], list[str]] | None = None,
    ) -> int:
        """Write ``summary.json`` and ``summary.csv``, then other files and, if asked for, ``report.html``, the last.

        The summary comes first: nothing that goes wrong with another file costs the results.

        Args:
            entries: From `entries`.
            columns: Keys that are columns of the table.
            units: Unit of each quantity.
            rows: Lines of the table if they are not the entries.
            write: Writes further files and returns what to call them; it may add notes to the entries.

        Returns:
            Exit code: 0, or 3 if a status is not among the good ones.
        """
        summary = self.summary(entries, units) | {"finished": now()}
        write_summary(self.folder, summary, columns, rows)
        if write is not None:
            self.written += self._attempt("some files were not written", write) or []
            write_summary(self.folder, summary | {"notes": self.notes}, columns, rows)
        good = sum(entry["status"] in GOOD for entry in entries)
        _log.info("finished: %d of %d converged", good, len(entries))
        if self.config.report:
            self._attempt("report.html was not written", lambda: write_report(self.folder))
        return EXIT_OK if good == len(entries) else EXIT_INCOMPLETE

    def _attempt(self, what: str, write: Callable[[], Any]) -> Any:
        """Write files that the results do not depend on; only a disk that cannot be written ends the run."""
        try:
            return write()
        except (OSError, OutputError):
            raise
        except Exception as error:
            self.notes.append(f"{what}: {type(error).__name__}: {error}. The results are in summary.json.")
            _log.exception("%s", what)
            typer.echo(self.notes[-1], err=True)
            return None

    def summary(self, entries: list[dict[str, Any]], units: Mapping[str, str]) -> dict[str, Any]:
        """Everything about the run.

        Args:
            entries: From `entries`.
            units: Unit of each quantity.

        Returns:
            Content of ``summary.json``; ``finished`` is None.
        """
        return {
            "command": self.command,
            "created": self.created,
            "finished": None,
            "versions": versions(),
            "units": dict(units),
            "config": self.config.model_dump(mode="json"),
            "model": described(self.config.model, self.model),
            "models": {name: described(name, model) for name, model in self.models.items()},
            "structures": entries,
            "skipped": [{"file": item.file, "message": item.message} for item in self.skipped],
        }


@contextmanager
def open_run(
    command: str,
    config: RunConfig,
    *,
    force: bool,
    resume: bool | None = None,
    build: Callable[[Any], list[LoadedStructure]] | None = None,
    admit: Callable[[Any], object] = lambda _: None,
) -> Iterator[PropertyRun]:
    """Load the models, read the structures, prepare the folder and log to it.

    Args:
        command: Name of the command.
        config: The merged configuration.
        force: Overwrite an earlier run in the same folder.
        resume: Go on with an earlier run in the same folder; None for a command that does not `store` what it finishes.
        build: Makes the structures from the model, for a command that needs no files.
        admit: Raises `UnsupportedOptionError` for a model that the command cannot use.

    Yields:
        The run.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
        typer.Exit: 128 plus the number of the signal that stops the run.
    """
    with quiet_imports():
        skipped: list[FailedStructure] = []
        models, items = prepare_run(config, build=build, admit=admit, skipped=skipped)
    run = PropertyRun(command, config, Path(config.output), models, items, now(), skipped=skipped)
    if resume is not None:
        with open_resumable(run, resume=resume, force=force) as run.manifest:
            run.n_resumed = len(run.records)
            if run.n_resumed:
                _log.info("resumed: %d structures were finished before", run.n_resumed)
            with says_what_is_finished(run.kept):
                yield run
        return
    folder = open_folder(run.folder, command, resume=None, force=force, inputs=run_inputs(config, items))
    with folder as (run.manifest, _), log_to(run.folder / "log.txt"):
        run.manifest.on_begin(lambda: _write_start(run))
        log_start(command, config, items, skipped)
        with says_what_is_finished(lambda: f"{command} keeps nothing of it: start over with --force."):
            yield run


def _write_start(run: PropertyRun) -> None:
    """Mark the folder as ours in case the run is interrupted."""
    write_text(run.folder / "config.yaml", dump_config(run.config))
    write_summary(run.folder, run.summary([], {}), ())

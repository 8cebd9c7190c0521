"""The folder of one run: never overwritten by accident, resumable, with a log."""

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmace_sim.base.settings import Settings
from mmace_sim.base.text import printable, say
from mmace_sim.engine.journal import FILE_NAME, read_journal
from mmace_sim.engine.output import versions
from mmace_sim.errors import OutputError
from mmace_sim.files import Manifest, append
from mmace_sim.files.manifest import FILE_NAME as LIST_NAME
from mmace_sim.files.manifest import HOLDER, active_for
from mmace_sim.files.workers import take_over
from mmace_sim.io.collection import VOLUMES, FailedStructure, LoadedStructure, is_run_folder

NO_CONTENT = re.compile(rf"\.probe-\w+|\.lock|\.mmace-sim[\w-]*\.jsonl|{HOLDER.pattern}")
"""Lists of files, and what killed processes leave: a folder with nothing else is empty."""

_log = logging.getLogger(__name__)


def now() -> str:
    """The time in ISO 8601, with the offset from UTC.

    Returns:
        Such as ``2026-11-24T15:00:00+00:00``.
    """
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


@contextmanager
def open_folder(
    folder: Path,
    command: str,
    *,
    resume: bool | None,
    force: bool,
    inputs: Iterable[Path] = (),
    resumes_from: str = FILE_NAME,
) -> Iterator[tuple[Manifest, bool]]:
    """Create the folder of a run, or make sure that it may be used; no other process can until the block ends.

    The files of an earlier run are removed by the first write: all that can be refused should be checked before.

    Args:
        folder: The folder.
        command: Name of the command.
        resume: Go on with a run that is in it; None if the command cannot do that.
        force: Remove the files of an earlier run of the same command.
        inputs: What the run reads.
        resumes_from: File without which there is nothing to go on with.

    Yields:
        The list of files of the run, and whether there is a run to go on with.

    Raises:
        OutputError: If the folder is in use, cannot be written, or holds what must not be removed.
    """
    if resume and force:
        raise OutputError(
            "--resume and --force contradict each other: go on with the earlier run, or overwrite it?"
        )
    existed = os.path.exists(folder)  # of a name that cannot be, this says no
    _check_unlisted(folder, resume=resume, force=force, inputs=inputs, resumes_from=resumes_from)
    manifest = Manifest(folder, command)
    try:
        with manifest.activated():
            for own in manifest.holders:
                take_over(manifest, own)
            earlier = bool(_content(folder))
            if not earlier:
                manifest.plan_removal()
            elif not resume:
                _plan_removal(folder, manifest, command, can_resume=resume is not None, force=force)
                manifest.on_begin(lambda: _discard_volumes(folder))
            elif manifest.problem:
                _log.warning("%s: %s; files of the earlier part are not listed", folder, manifest.problem)
            yield manifest, bool(earlier and resume)
    finally:
        for note in manifest.notes:
            say(note)
        if not (existed or manifest.begun):
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def open_file(output: Path, command: str, *, force: bool, inputs: Iterable[Path]) -> Iterator[None]:
    """Make sure that the one file of a command may be written; what it writes is listed beside it.

    Args:
        output: The file.
        command: Name of the command.
        force: Replace the file that an earlier call of the same command wrote.
        inputs: What the command reads.

    Yields:
        Nothing.

    Raises:
        OutputError: If the file exists, unless it may be replaced, or its folder does not.
    """
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent} is no folder; make it first.")
    exists = os.path.lexists(output)
    if exists and not force:
        raise OutputError(f"{output} exists; choose another name, or replace it with --force.")
    manifest = Manifest(
        output.parent, command, name=f".mmace-sim-{command.replace(' ', '-')}.jsonl", exclusive=False
    )
    with manifest.activated():
        if exists and any(path.exists() and path.samefile(output) for path in inputs if output.exists()):
            raise OutputError(f"{output}: is read by this command. Choose another name.")
        if exists and not manifest.has_own(output):
            raise OutputError(
                f"{output}: was not written by mmace-sim {command}, or was changed since, and is not replaced. Move it "
                "elsewhere, or choose another name."
            )
        yield


def _content(folder: Path) -> list[str]:
    """What is in a folder, apart from lists of files and what killed processes leave."""
    return [name for name in os.listdir(folder) if not NO_CONTENT.fullmatch(name)]


def _check_writable(folder: Path) -> None:
    """Fail now rather than after hours: no permission, or no space for 1 MB."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(2**20))
        probe.flush()
        os.fsync(probe.fileno())


def _refuse_inputs(folder: Path, inputs: Iterable[Path]) -> None:
    """Refuse to overwrite a folder in which there is something that the new run reads."""
    for path in inputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise OutputError(
                f"{folder}: holds {path}, which this run reads, and is not overwritten. Choose another folder "
                "(--output DIR)."
            )


def _check_unlisted(
    folder: Path, *, resume: bool | None, force: bool, inputs: Iterable[Path], resumes_from: str
) -> None:
    """Make the folder; refuse what needs no look at its list of files, so that nothing is written to it."""
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file, not a folder. Choose another --output.")
        if folder.is_symlink() and not folder.exists():
            raise OutputError(
                f"{folder}: is a link to {folder.readlink()}, which is not there. Make that folder first."
            )
        folder.mkdir(parents=True, exist_ok=True)
        _check_writable(folder)
        if not _content(folder):
            return
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{printable(str(folder))}: cannot be written ({reason}). Choose another folder with --output."
        ) from error
    _refuse_inputs(folder, inputs if force else ())
    resumable = resume is not None and (folder / resumes_from).is_file()
    listed = os.path.lexists(folder / LIST_NAME)
    if not (listed or resumable or is_run_folder(folder)):
        raise _no_run(folder)
    if resume and not resumable:
        raise OutputError(f"{folder}: has no {resumes_from} to resume from. Start over with --force.")
    if not (listed or resume or force):
        raise _in_use(folder, can_resume=resume is not None)
    if force and not listed:
        raise OutputError(
            f"{folder}: holds a run of an earlier version of mmace-sim, which kept no list of its files: it is not "
            "known which are its own. Nothing was removed. Remove the folder yourself, or choose another "
            "(--output DIR)."
        )


def _plan_removal(folder: Path, manifest: Manifest, command: str, *, can_resume: bool, force: bool) -> None:
    """Refuse a folder that is in use, unless its run may be overwritten."""
    if not (manifest.existing or manifest.problem):
        raise _no_run(folder)
    if not force:
        raise _in_use(folder, can_resume=can_resume)
    if not manifest.problem and manifest.command != command:
        raise OutputError(
            f"{folder}: holds a run of mmace-sim {manifest.command}, which {command} does not overwrite. Choose "
            "another folder with --output."
        )
    if folder.is_symlink():
        raise OutputError(
            f"{folder}: is a symbolic link, through which nothing is removed. Name the folder itself: "
            f"--output {folder.resolve()}"
        )
    manifest.plan_removal()
    for name in manifest.kept:
        say(f"{folder / name}: changed since the earlier run wrote it, and is kept.")


def _discard_volumes(folder: Path) -> None:
    """Remove what the volumes of a large run wrote."""
    for volume in sorted((folder / VOLUMES).glob("*/")):
        Manifest(volume, "").discard()
        with suppress(OSError):  # somebody else's files are in it
            volume.rmdir()
    with suppress(OSError):
        (folder / VOLUMES).rmdir()


def _no_run(folder: Path) -> OutputError:
    return OutputError(
        f"{folder}: is not empty and holds no run of mmace-sim. Choose a new or empty folder with --output."
    )


def _in_use(folder: Path, *, can_resume: bool) -> OutputError:
    ways = ("Go on with it (--resume), overwrite it" if can_resume else "Overwrite it") + " (--force), "
    return OutputError(
        f"{folder}: holds results of an earlier run. {ways}or choose another folder (--output DIR)."
    )


def finished_records(folder: Path, header: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What an earlier run finished, after making sure that it was the same run.

    Args:
        folder: The run folder.
        header: Description of the run that starts now: ``config`` and ``inputs`` must agree.

    Returns:
        Records of finished structures by key.

    Raises:
        OutputError: If configuration, model or inputs differ.
    """
    records = read_journal(folder / FILE_NAME)
    if not records:
        return {}
    earlier = records[0]
    commands = [record["command"] for record in (earlier, header) if "command" in record]
    if len(set(commands)) > 1:
        raise OutputError(
            f"{folder}: holds a run of mmace-sim {commands[0]}, not of {commands[1]}. Choose another "
            "folder (--output DIR)."
        )
    for what in ("config", "inputs"):
        difference = _first_difference(earlier.get(what, {}), header[what])
        if difference:
            raise OutputError(
                f"{folder}: cannot be resumed, {what} differs: {difference}. Use the same {what} as before, "
                "overwrite the run (--force), or choose another folder (--output DIR)."
            )
    return {str(record["key"]): record for record in records[1:]}


def _first_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    for key in dict.fromkeys((*old, *new)):
        if key not in new:
            return f"{key} is missing now"
        if key not in old:
            return f"{key} is new"
        if old[key] != new[key]:
            short = all(len(str(value)) < 40 for value in (old[key], new[key]))
            return f"{key} was {old[key]}, now {new[key]}" if short else f"{key} has changed"
    return ""


class _IsoFormatter(logging.Formatter):
    """Time stamps in ISO 8601 with the offset from UTC."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        return datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="seconds")


class _LogFile(logging.Handler):
    """A log that waits until its run begins, and stays silent when the disk is full: the results report that.

    Args:
        path: File to append to.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._waiting: list[str] = []
        self._manifest = active_for(path)
        if self._manifest is not None:
            self._manifest.on_begin(self._flush)

    @property
    def notes(self) -> list[str]:
        """What had to be set aside."""
        return [] if self._manifest is None else self._manifest.notes

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + "\n"
        if self._manifest is not None and not self._manifest.begun:
            self._waiting.append(line)
            return
        with suppress(OSError):
            append(self._path, line)

    def _flush(self) -> None:
        with suppress(OSError):
            append(self._path, "".join(self._waiting))


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send log messages of the package, and Python warnings, to a file, as soon as its run begins to write.

    Args:
        path: File to append to.

    Yields:
        Nothing.
    """
    handler = _LogFile(path)
    handler.setFormatter(_IsoFormatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("mmace_sim")
    python = logging.getLogger("py.warnings")
    level, propagate = ours.level, python.propagate
    ours.setLevel(logging.INFO)
    python.propagate = False
    for logger in (ours, python):
        logger.addHandler(handler)
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):  # hosts about their hosts: nothing a user can do
            warnings.simplefilter("ignore", category)
        logging.captureWarnings(capture=True)
        try:
            yield
        finally:
            for note in handler.notes:
                _log.warning("%s", note)
            logging.captureWarnings(capture=False)
            ours.setLevel(level)
            python.propagate = propagate
            for logger in (ours, python):
                logger.removeHandler(handler)
            handler.close()


def only_warnings() -> None:
    """From now on take only warnings into the logs that are open: what follows has logs of its own."""
    for handler in logging.getLogger("mmace_sim").handlers:
        if isinstance(handler, _LogFile):
            handler.setLevel(logging.WARNING)


def log_start(
    command: str,
    config: Settings,
    items: Sequence[LoadedStructure | FailedStructure],
    skipped: Sequence[FailedStructure] = (),
) -> None:
    """Write to the log what runs, with which versions, and what is wrong with structures.

    Args:
        command: Name of the command.
        config: The merged configuration.
        items: Structures and failures.
        skipped: Files of folders that hold no structure.
    """
    counted = f", {len(items)} structures" if items else ""
    model = getattr(config, "model", None)
    _log.info("mmace-sim %s%s%s", command, counted, f", model {model}" if model else "")
    _log.info("versions: %s", ", ".join(f"{name} {number}" for name, number in versions().items()))
    for file in skipped:
        _log.info("skipped %s", file.message)
    for item in items:
        if isinstance(item, FailedStructure):
            _log.error("%s", item.message)
        for note in getattr(item, "notes", ()):
            _log.info("%s: %s", item.name, note)

"""The folder of one run: never overwritten by accident, resumable, with a log."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmace_sim.cli.config import ModelRunConfig
from mmace_sim.errors import OutputError
from mmace_sim.workflows.journal import FILE_NAME, Journal, read_journal
from mmace_sim.workflows.output import versions
from mmace_sim.workflows.structures import FailedStructure, LoadedStructure, is_run_folder

OWN_FILES: tuple[str, ...] = (
    "summary.json", "summary.csv", "config.yaml", "log.txt", "relaxed.extxyz", FILE_NAME, "structures/*.cif",
    "structures/*.mcif", "structures/*.vasp", "points.extxyz", "curves.csv", "figures/*.png", "figures/*.svg",
    "*/phonopy_params.yaml", "*/band.yaml", "*/total_dos.dat", "*/thermal_properties.yaml", "*/bands.png",
    "*/shells.csv", "*/pairs.csv", "*/magnons.csv", "*/exchange.png", "*/exchange.svg", "*/magnons.png",
    "*/directions.csv", "*/anisotropy_*.png", "*/anisotropy_*.svg",
    "*/points.csv", "*/order.png", "*/order.svg", "*/susceptibility.png", "*/susceptibility.svg", "*/binder.png",
    "*/binder.svg", "*/heat_capacity.png", "*/heat_capacity.svg", "*/samples-*.npz",
    "*/trajectory.extxyz", "*/thermo.csv", "*/checkpoint.npz", "*/energies.png", "*/energies.svg", "final.extxyz",
    "*/temperatures.png", "*/temperatures.svg", "*/moments.png", "*/moments.svg",
    "*/magnons.svg", "*/vampire/*", "*/uppasd/*", "*/spirit/*", "*/tb2j/exchange.out",
    "*/bands.svg", "*/FORCE_SETS", "*/FORCE_CONSTANTS", "report.html", "starts.csv", "minima.extxyz", "structures.csv",
)  # fmt: skip
"""Patterns of what ``--force`` may remove; everything else in a folder is left alone. A command adds its own here."""

_log = logging.getLogger(__name__)


def now() -> str:
    """The time in ISO 8601, with the offset from UTC.

    Returns:
        Such as ``2026-11-24T15:00:00+00:00``.
    """
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def prepare_folder(
    folder: Path,
    *,
    resume: bool | None,
    force: bool,
    use_existing: Callable[..., bool] | None = None,
) -> bool:
    """Create the folder of a run, or make sure that it may be used.

    Args:
        folder: The folder.
        resume: Go on with a run that is in it; None if the command cannot do that.
        force: Remove the files of an earlier run.
        use_existing: What to do with a folder that is not empty, if not what runs with a journal do; called with the
            folder and the keywords `resume` and `force`.

    Returns:
        True if there is a run to go on with.

    Raises:
        OutputError: If the folder is in use, or cannot be written.
    """
    if resume and force:
        raise OutputError(
            "--resume and --force contradict each other: go on with the earlier run, or overwrite it?"
        )
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file, not a folder. Choose another --output.")
        folder.mkdir(parents=True, exist_ok=True)
        _check_writable(folder)
        if not any(folder.iterdir()):
            return False
        return (use_existing or _use_existing)(folder, resume=resume, force=force)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}). Choose another folder with --output."
        ) from error


def _check_writable(folder: Path) -> None:
    """Fail now rather than after hours: no permission, or no space for 1 MB."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def _use_existing(folder: Path, *, resume: bool | None, force: bool) -> bool:
    if not is_run_folder(folder):
        raise OutputError(
            f"{folder}: is not empty and holds no run of mmace-sim. Choose a new or empty folder with --output."
        )
    if resume:
        if not (folder / FILE_NAME).is_file():
            raise OutputError(f"{folder}: has no {FILE_NAME} to resume from. Start over with --force.")
        return True
    if not force:
        ways = (
            "Overwrite it" if resume is None else "Go on with it (--resume), overwrite it"
        ) + " (--force), "
        raise OutputError(
            f"{folder}: holds results of an earlier run. {ways}or choose another folder (--output DIR)."
        )
    with Journal(folder / FILE_NAME):  # refuses while another process writes this folder
        pass
    for pattern in OWN_FILES:
        for path in folder.glob(pattern):
            path.unlink()
    return False


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


class _LogFile(logging.FileHandler):
    """A log that stays silent when the disk is full: the journal reports that, and stops the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        return


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send log messages of the package, and Python warnings, to a file.

    Args:
        path: File to append to.

    Yields:
        Nothing.

    Raises:
        OutputError: If the file cannot be written.
    """
    try:
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}). Choose another --output."
        ) from error
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
            logging.captureWarnings(capture=False)
            ours.setLevel(level)
            python.propagate = propagate
            for logger in (ours, python):
                logger.removeHandler(handler)
            handler.close()


def log_start(
    command: str, config: ModelRunConfig, items: Sequence[LoadedStructure | FailedStructure]
) -> None:
    """Write to the log what runs, with which versions, and what is wrong with structures.

    Args:
        command: Name of the command.
        config: The merged configuration.
        items: Structures and failures.
    """
    _log.info("mmace-sim %s, %d structures, model %s", command, len(items), config.model)
    _log.info("versions: %s", ", ".join(f"{name} {number}" for name, number in versions().items()))
    for item in items:
        if isinstance(item, FailedStructure):
            _log.error("%s", item.message)
        for note in getattr(item, "notes", ()):
            _log.info("%s: %s", item.name, note)

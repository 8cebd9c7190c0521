"""A run of more structures than one process should hold: many ordinary runs, its *volumes*, and a table of all.

A volume is some thousand atoms, known by files and places in them before anything is read (`mmace_sim.io.spans`).
Whoever computes it, this process or a worker, reads it, and does with it what is done with any run, in a folder of its
own below ``volumes/``: journal, resume and files are those of `mmace_sim.engine.lifecycle`. What the process that was
started keeps of a volume is how many of its structures ended how.
"""

import logging
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmace_sim.engine.computation import Computation
from mmace_sim.engine.cuts import cut_run
from mmace_sim.engine.declaration import GOOD, Property, imported
from mmace_sim.engine.folder import only_warnings
from mmace_sim.engine.gathered import gathered
from mmace_sim.engine.inputs import load_run_model
from mmace_sim.engine.journal import FILE_NAME, SIGN_OF_VOLUME, weights_hash
from mmace_sim.engine.lifecycle import run_property
from mmace_sim.engine.machine import quiet_imports, use_threads
from mmace_sim.engine.output import check_versions, versions
from mmace_sim.engine.pieces import LEAST_LIMIT, MOVES, check_failure
from mmace_sim.engine.progress import progress, says_what_is_finished
from mmace_sim.engine.results import EXIT_INCOMPLETE, EXIT_OK, Outcome
from mmace_sim.engine.resume import Task, open_resumable
from mmace_sim.engine.settings import NOT_PHYSICS
from mmace_sim.engine.worker import alive
from mmace_sim.errors import ModelFileError
from mmace_sim.executors.interface import TaskFailure, open_executor
from mmace_sim.files import scratch
from mmace_sim.files.content import FolderInUseError
from mmace_sim.io.collection import VOLUMES
from mmace_sim.io.spans import identity_of, n_structures_of, packed, unpacked
from mmace_sim.structures.model_choice import AUTO

_DYING: float = 90.0
"""Seconds that a volume may still be locked by a worker of a process that was killed."""

FIRST_LIMIT: float = 86_400.0
"""Seconds that a volume may take as long as none is finished."""

_log = logging.getLogger(__name__)


def _volume_name(number: int) -> str:
    """Name of the folder of a volume, and of its line in the journal."""
    return f"{number:05d}"


@dataclass(frozen=True)
class Volume:
    """A volume, as it travels to a worker.

    Attributes:
        number: Its number.
        n_structures: How many structures it is expected to hold.
        spans: They, packed.
        declared: Where the property is declared.
        settings: Of the run, plain JSON.
        versions: Of packages, where the run was started.
        directory: Where relative paths start.
        limit: Seconds after which its worker is ended; None: never.
        executor: Who computes its pieces: as a run of its own, if its workers die.
        signs: Where its worker says that it lives; None: this process computes it.
        tries: How often it was begun in vain.
    """

    number: int
    n_structures: int
    spans: bytes
    declared: str
    settings: dict[str, Any]
    versions: dict[str, str]
    directory: Path
    limit: float | None = None
    executor: str | None = None
    signs: Path | None = None
    tries: int = 0

    @property
    def name(self) -> str:
        """Of its folder."""
        return _volume_name(self.number)

    @property
    def folder(self) -> Path:
        """Its folder."""
        return Path(self.settings["output"]) / VOLUMES / self.name


@dataclass(frozen=True)
class VolumeEnd:
    """What became of a volume.

    Attributes:
        counts: Structures by status.
        n_skipped: Files that hold no structure.
        n_lost: Structures that no worker survived, or that left no result.
        weights: Hash of the weights of each model.
        seconds: That it took.
        memory: Largest memory of its process so far, in MB.
    """

    counts: dict[str, int]
    n_skipped: int
    n_lost: int
    weights: dict[str, str]
    seconds: float
    memory: float


def compute_volume(volume: Volume) -> VolumeEnd:
    """Run a volume, or go on with it.

    Args:
        volume: Which.

    Raises:
        ModelFileError: If the model cannot be loaded here, or is another one.
        OutputError: If the disk is full.
    """
    os.chdir(volume.directory)
    check_versions(volume.versions)
    start = time.monotonic()
    with quiet_imports():
        declared: Property = imported(volume.declared)
        changed = {"output": str(volume.folder), "executor": volume.executor, "report": False}
        settings = declared.settings.model_validate(volume.settings | changed)
    use_threads(settings.threads)
    spans = unpacked(volume.spans)
    deadline = time.monotonic() + _DYING
    while True:
        begun = (volume.folder / FILE_NAME).is_file()
        force = volume.folder.is_dir() and not begun  # killed before there was anything to go on with
        try:
            with _told(volume):
                outcome = run_property(declared, settings, resume=begun, force=force, quiet=True, spans=spans)
            break
        except FolderInUseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
    return VolumeEnd(
        counts=dict(Counter(entry["status"] for entry in outcome.summary["structures"])),
        n_skipped=len(outcome.summary["skipped"]),
        n_lost=outcome.n_lost,
        weights=outcome.weights,
        seconds=round(time.monotonic() - start, 2),
        memory=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    )


@contextmanager
def _told(volume: Volume) -> Iterator[None]:
    """Say who computes a volume, as long as a worker does."""
    if volume.signs is None:
        yield
        return
    sign = volume.signs / SIGN_OF_VOLUME.format(volume.name)
    try:
        with alive(sign, lambda: {"volume": volume.name}):
            yield
    finally:
        sign.unlink(missing_ok=True)


def _counted(path: Path, before: tuple[int, int]) -> tuple[int, int]:
    """Bytes and lines of a file that grows, from what they were."""
    size, lines = before
    try:
        with path.open("rb") as file:
            file.seek(size)
            while block := file.read(2**20):
                size, lines = size + len(block), lines + block.count(b"\n")
    except OSError:  # not begun
        pass
    return size, lines


@dataclass
class _LargeRun:
    """A run of volumes.

    Attributes:
        computation: What is computed.
        task: Its journal: one line for each volume.
        spans: Structures of each volume, packed.
        sizes: How many each is expected to hold.
        weights: Hashes of weights, by the name of the model.
        hard: Volumes whose workers died.
    """

    computation: Computation
    task: Task
    spans: list[bytes]
    sizes: list[int]
    weights: dict[str, str]
    hard: list[Volume] = field(default_factory=list)
    _lines: dict[str, tuple[int, int]] = field(default_factory=dict)
    _begun: dict[str, int] = field(default_factory=dict)
    _slowest: float = 0.0
    _told: Callable[..., None] = lambda *_, **__: None

    @classmethod
    def read(cls, computation: Computation, *, resume: bool) -> "_LargeRun":
        """Find the structures, and load the model once, to see that it can be used."""
        settings, spans, inputs = computation.settings, [], {}
        models = {} if settings.model == AUTO else {settings.model: load_run_model(settings)}
        for model in models.values():
            computation.admit(model)
        for number, volume in enumerate(cut_run(computation, models, resume=resume)):
            spans.append(packed(volume))
            inputs[_volume_name(number)] = identity_of(volume)
        task = Task(computation.declared.name, settings, Path(settings.output), inputs, models)
        sizes = [n_structures_of(identity) for identity in inputs.values()]
        weights = {name: weights_hash(model) for name, model in models.items()}
        return cls(computation, task, spans, sizes, weights)

    @property
    def n_structures(self) -> int:
        """How many there are, as far as files tell."""
        return sum(self.sizes)

    @cached_property
    def more(self) -> dict[str, Any]:
        """Settings with which a volume that is finished may be gone on with."""
        names = self.computation.declared.may_differ - NOT_PHYSICS
        return self.computation.settings.model_dump(mode="json", include=set(names))

    def pending(self, patience: float, signs: Path) -> Iterator[Volume]:
        """Volumes that are not finished, in the order of the input, each with a limit by the slowest so far."""
        settings = self.computation.settings
        alike = {
            "declared": self.computation.declared.reference,
            "settings": settings.model_dump(mode="json")
            | {"output": os.path.abspath(settings.output), "executor": None},
            "versions": versions(),
            "directory": Path.cwd(),
            "signs": None if settings.executor is None else signs,
        }
        for number, (spans, size) in enumerate(zip(self.spans, self.sizes, strict=True)):
            volume = Volume(number, size, spans, **alike, limit=self._limit(patience))
            if not self.is_finished(volume.name):
                self._lines[volume.name] = (0, 0)
                yield volume

    def _limit(self, patience: float) -> float | None:
        return max(LEAST_LIMIT, patience * self._slowest or FIRST_LIMIT) if patience else None

    def is_finished(self, name: str) -> bool:
        """Whether nothing is left to do in a volume."""
        record = self.task.records.get(name)
        return record is not None and record["more"] == self.more and not record["n_lost"]

    def compute(self, *, quiet: bool) -> None:
        """Compute what is pending, then those volumes whose workers died, in pieces."""
        choice = self.computation.settings.executor
        n_left = sum(n for k, n in enumerate(self.sizes) if not self.is_finished(_volume_name(k)))
        with progress(self.computation.verb, n_left, "structures", quiet=quiet) as self._told:
            only_warnings()  # each volume has a log of its own
            if n_left:
                with scratch(self.task.folder.absolute()) as own, open_executor(choice, own) as executor:
                    pending = self.pending(executor.patience, own)
                    executor.map(compute_volume, pending, self._finished, self._failed, self._look)
            for volume in self.hard:
                self._finished(volume, compute_volume(replace(volume, executor=choice, signs=None)))

    def _finished(self, volume: Volume, end: VolumeEnd) -> None:
        for name, weights in end.weights.items():
            if self.weights.setdefault(name, weights) != weights:
                raise ModelFileError(
                    f"{name}: is not the same model on all nodes (volume {volume.name} was computed with another one). "
                    "Put the same file everywhere, and start over with --force."
                )
        self._slowest = max(self._slowest, end.seconds)
        self._told(volume.n_structures - self._results(self._lines.pop(volume.name)))
        self.task.store(volume.name, asdict(end) | {"more": self.more})

    def _failed(self, volume: Volume, failure: TaskFailure) -> list[Volume]:
        """What to compute in place of a volume that has no end."""
        check_failure(failure)
        if failure.lost is None and self.computation.settings.executor is None:
            raise failure.error
        before = self._begun.get(volume.name, 0)
        self._look()
        self._begun[volume.name] = self._results(self._lines[volume.name])
        progressed = self._begun[volume.name] > before
        tries = 0 if progressed and failure.lost == "block" else volume.tries + 1
        _log.warning("volume %s is gone on with: %s", volume.name, failure.reason)
        if tries <= {"worker": 1, "block": MOVES}.get(failure.lost or "", 0):
            return [replace(volume, tries=tries)]
        self.hard.append(volume)
        return []

    def _look(self) -> None:
        """Tell how far the volumes under way are: each line of a journal but the first is a result."""
        for name, before in list(self._lines.items()):
            self._lines[name] = now = _counted(self.task.folder / VOLUMES / name / FILE_NAME, before)
            self._told(self._results(now) - self._results(before))

    @staticmethod
    def _results(lines: tuple[int, int]) -> int:
        return max(0, lines[1] - 1)

    def kept(self) -> str:
        """What is safe if the run ends now."""
        folder, records = self.task.folder, self.task.records
        n_done = sum(sum(record["counts"].values()) for record in records.values())
        n_done += sum(map(self._results, self._lines.values()))
        return (
            f"{n_done} of {self.n_structures} structures are finished and safe in {folder}, those under way are kept: "
            "run the same command with --resume to go on."
        )


def run_large(
    computation: Computation[Any, Any],
    *,
    resume: bool,
    force: bool,
    quiet: bool,
    report: Callable[[Path], object] | None,
) -> Outcome:
    """Compute a property of more structures than one process should hold.

    Args:
        computation: What is computed.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        quiet: Show no progress.
        report: Writes a page about the folder of a finished run.

    Raises:
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If a model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
        KeyboardInterrupt: If a signal has come; its notes say what is kept.
    """
    run = _LargeRun.read(computation, resume=resume)
    task, may_differ = run.task, computation.declared.may_differ
    with (
        open_resumable(task, resume=resume, force=force, may_differ=may_differ) as task.manifest,
        says_what_is_finished(run.kept),
    ):
        finished = [task.records[name] for name in task.identities if run.is_finished(name)]
        _log.info("%d structures in %d volumes", run.n_structures, len(run.sizes))
        run.compute(quiet=quiet)
        summary, rows, written = gathered(computation, task, run.n_structures)
        if report is not None:
            report(task.folder)
    code = EXIT_OK if set(summary["statuses"]) <= GOOD else EXIT_INCOMPLETE
    n_resumed = sum(sum(record["counts"].values()) for record in finished)
    return Outcome(code, summary, rows, written, task.folder, n_resumed)

"""A run in pieces, computed by workers: who gets what, what comes back, and what becomes of those that do not.

A piece is some minutes of work, cut when a worker is free, smaller towards the end. Its worker keeps a journal in a
folder of its own; what appears there is taken over at once, so that whoever dies, only what was under way is lost. A
piece whose worker died is computed once more, then its halves, and so on; one structure that kills its worker fails.
"""

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmace_sim.engine.checkpoint import checkpoint_keys, kept_checkpoints
from mmace_sim.engine.computation import Computation
from mmace_sim.engine.journal import CHECKPOINT, FILE_NAME, JournalTail, weights_hash
from mmace_sim.engine.output import versions
from mmace_sim.engine.progress import progress
from mmace_sim.engine.results import lost_record
from mmace_sim.engine.resume import item_key
from mmace_sim.errors import MmaceError, StructureError
from mmace_sim.executors.interface import Executor, ExecutorError, TaskFailure, open_executor
from mmace_sim.files import append, private_folder, scratch
from mmace_sim.files.workers import known_by_folder, take_over
from mmace_sim.io.collection import LoadedStructure

if TYPE_CHECKING:
    from mmace_sim.engine.run import Run

SECONDS: float = 180.0
"""Work of a piece: long enough for full batches, short enough to lose it."""

FIRST_SECONDS: float = 20.0
"""Work of a piece by the estimate alone, as long as nothing was measured."""

LEAST_SECONDS: float = 5.0
"""Work of the pieces at the end, once something was measured."""

SECONDS_PER_ATOM: float = 1e-3
"""Guess for an energy with derivatives; what is measured replaces it."""

MOVES: int = 5
"""So often a piece may lose its node without any result, before its structures are held to be the reason."""

_UNMEASURED: float = 10.0
"""So many times slower than estimated a machine may be before anything was measured."""

PATIENCE: float = 30.0
"""Seconds until a result that a worker has written must be seen here: network file systems take their time."""

LEAST_LIMIT: float = 3600.0
"""Seconds that every piece may take."""

_FOREIGN = frozenset({"DeserializationError", "SerializationError"})
"""Errors of Parsl (which may be missing here) about what a worker cannot read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """A piece of a run, as it travels to a worker.

    Attributes:
        property: Where the property is declared.
        settings: Its settings, plain JSON.
        identity: Hash of settings and models of the run.
        context: See `mmace_sim.engine.computation.Computation`.
        model: Name of the model.
        weights: Hash of its weights.
        items: The structures.
        places: Folder of each structure, by its name.
        folder: Folder of the run.
        own: The worker's own folder in it.
        known: States of files that the run has written before.
        directory: Where relative paths start.
        versions: Of packages, where the run was started.
        checkpoints: Files of what is under way that hold some of the structures.
        limit: Seconds after which its worker is ended; None: never.
        tries: How often a worker died on it, or went away.
    """

    property: str
    settings: dict[str, Any]
    identity: str
    context: dict[str, Any]
    model: str
    weights: str
    items: list[LoadedStructure]
    places: dict[str, Path]
    folder: Path
    own: Path
    known: dict[str, Any]
    directory: Path
    versions: dict[str, str]
    checkpoints: tuple[Path, ...] = ()
    limit: float | None = None
    tries: int = 0


@dataclass(frozen=True)
class ShardEnd:
    """How a worker ended a piece.

    Attributes:
        n_lines: Lines of its journal.
        seconds: Of computing.
    """

    n_lines: int
    seconds: float


@dataclass
class _Pace:
    """How long work takes: an estimate, times what was measured of it.

    Attributes:
        n_workers: How many share it.
        left: Estimated seconds of what is not yet given out.
    """

    n_workers: int
    left: float
    _estimated: float = field(default=0.0, init=False)
    _measured: float = field(default=0.0, init=False)

    def next(self) -> float:
        """Estimated seconds that the next piece should have."""
        share = self.left / (2 * self.n_workers)
        if not self._measured:
            return min(share, FIRST_SECONDS)
        factor = self._estimated / self._measured
        return max(min(share, SECONDS * factor), LEAST_SECONDS * factor)

    def measured(self, estimated: float, seconds: float) -> None:
        """A piece was finished."""
        self._estimated += estimated
        self._measured += seconds

    def limit(self, estimated: float, patience: float) -> float | None:
        """Seconds that a piece may take: so many times as many as it should."""
        slowness = max(1.0, self._measured / self._estimated) if self._measured else _UNMEASURED
        return max(LEAST_LIMIT, patience * slowness * estimated) if patience else None


def compute_shards(run: "Run", computation: Computation, choice: str, *, quiet: bool) -> None:
    """Compute what is pending of a run by the workers of an executor.

    Args:
        run: The run.
        computation: What is computed.
        choice: See `mmace_sim.executors.interface.ExecutorChoice`.
        quiet: Show no progress.

    Raises:
        ExecutorError: If no workers can be had.
    """
    n = len(run.pending)
    with progress(computation.verb, n, "structures", quiet=quiet) as advance:
        if n:
            with scratch(run.folder.absolute()) as folder, open_executor(choice, folder) as executor:
                _Shards(run, computation, executor, advance).compute()


def estimated_seconds(computation: Computation, item: LoadedStructure) -> float:
    """About how long a structure takes on one core, in s.

    Args:
        computation: What is computed.
        item: The structure, with moments.
    """
    work = max(1, computation.evaluations(item)) * len(item.atoms)
    return SECONDS_PER_ATOM * work + computation.seconds(item)


def check_failure(failure: TaskFailure) -> None:
    """End the run for what no other worker can do better: a full disk, a missing model, another environment.

    Args:
        failure: Why a task has no result.

    Raises:
        Exception: What a worker raised.
        ExecutorError: If workers cannot do what they are given.
    """
    error = failure.error
    if isinstance(error, MmaceError | OSError) and not isinstance(error, StructureError):
        raise error
    if isinstance(error, ImportError) or type(error).__name__ in _FOREIGN:
        raise ExecutorError(
            f"workers cannot do what they are given: {failure.reason}. Their environment must be that of this "
            "command (worker_init of the executor)."
        ) from error


class _Shards:
    """The pieces of a run."""

    def __init__(
        self, run: "Run", computation: Computation, executor: Executor, advance: Callable[..., None]
    ) -> None:
        self.run, self.computation, self.executor, self.advance = run, computation, executor, advance
        settings = computation.settings.model_dump(mode="json") | {"executor": None}
        self._alike: dict[str, Any] = {
            "property": computation.declared.reference,
            "settings": settings,
            "identity": run.identity,
            "context": computation.context,
            "folder": Path(os.path.abspath(run.folder)),
            "directory": Path.cwd(),
            "versions": versions(),
        }
        self._weights = {name: weights_hash(model) for name, model in run.models.items()}
        self._costs: dict[str, float] = {}
        self._waiting = [deque(sorted(part.pending, key=self._cost, reverse=True)) for part in run.parts()]
        self._pace = _Pace(executor.n_workers, sum(self._costs.values()))
        self._known = known_by_folder(run.manifest)
        self._tails: dict[Path, JournalTail] = {}
        self._kept = {key: path for path in kept_checkpoints(run.folder) for key in checkpoint_keys(path)}

    def compute(self) -> None:
        """Compute all of them."""
        from mmace_sim.engine.worker import compute_shard

        try:
            self.executor.map(compute_shard, self._cut(), self._finished, self._failed, self._look)
        finally:
            self._look()

    def _cost(self, item: LoadedStructure) -> float:
        """Estimated seconds of a structure; an estimate may take long itself."""
        key = item_key(item)
        if key not in self._costs:
            self._costs[key] = estimated_seconds(self.computation, item)
        return self._costs[key]

    def _cut(self) -> Iterator[Shard]:
        """The next piece, whenever a worker is free."""
        for waiting in self._waiting:
            while waiting:
                most, items, cost = self._pace.next(), [], 0.0
                while waiting and (not items or cost + self._cost(waiting[0]) <= most):
                    items.append(waiting.popleft())
                    cost += self._cost(items[-1])
                self._pace.left -= cost
                yield self._shard(items)

    def _shard(self, items: list[LoadedStructure]) -> Shard:
        own, folders = private_folder(self._alike["folder"]), self.run.folders
        self._tails[own] = JournalTail(own / FILE_NAME)
        places = {item.name: Path(os.path.abspath(folders[item.name])) for item in items}
        known: dict[str, Any] = {}
        for place in places.values():
            known |= self._known.get(place.name, {})
        model = items[0].model
        more = {"model": model, "weights": self._weights[model], "items": items, "places": places}
        kept = [self._kept[key] for item in items if (key := item_key(item)) in self._kept]
        limit = self._pace.limit(sum(map(self._cost, items)), self.executor.patience)
        return Shard(
            **self._alike, **more, own=own, known=known, checkpoints=tuple(dict.fromkeys(kept)), limit=limit
        )

    def _look(self) -> None:
        """Take over what workers have finished."""
        for own in list(self._tails):
            self._take(own)

    def _take(self, own: Path) -> None:
        for record in self._tails[own].new():
            if "key" in record and record["key"] not in self.run.records:
                self.run.keep({key: value for key, value in record.items() if key != "check"})
                self.advance(1)

    def _close(self, shard: Shard) -> None:
        """Take over the files of a piece, and what its worker said."""
        del self._tails[shard.own]
        take_over(self.run.manifest, shard.own)
        log = shard.own / "log.txt"
        if log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            said = [
                line for line in lines if " INFO " not in line
            ]  # results are logged as they are taken over
            append(self.run.folder / "log.txt", "".join(said))

    def _pending(self, shard: Shard) -> list[LoadedStructure]:
        return [item for item in shard.items if item_key(item) not in self.run.records]

    def _finished(self, shard: Shard, end: ShardEnd) -> None:
        deadline = time.monotonic() + PATIENCE
        self._take(shard.own)
        while self._tails[shard.own].n_lines < end.n_lines and time.monotonic() < deadline:
            time.sleep(0.1)
            self._take(shard.own)
        self._pace.measured(sum(map(self._cost, shard.items)), end.seconds)
        for item in self._pending(shard):
            self._give_up(item, "its worker has finished, but left no result")
        self._close(shard)
        shutil.rmtree(shard.own, ignore_errors=True)

    def _failed(self, shard: Shard, failure: TaskFailure) -> list[Shard]:
        """What to compute in place of a piece that has no end."""
        check_failure(failure)
        self._take(shard.own)
        pending = self._pending(shard)
        progressed = len(pending) < len(shard.items)
        if pending:
            _log.warning("%d structures are left of a piece: %s", len(pending), failure.reason)
        tries = 0 if progressed and failure.lost == "block" else shard.tries + 1
        allowed = {"worker": 1, "block": MOVES}.get(failure.lost or "", 0)
        self._keep_checkpoint(shard)
        self._close(shard)
        self._known = known_by_folder(self.run.manifest)
        again: list[Shard] = []
        if pending and tries <= allowed:
            again = [replace(self._shard(pending), tries=tries)]
        elif len(pending) > 1:  # the half with what killed its worker dies once more, the other does not
            half = len(pending) // 2
            again = [replace(self._shard(part), tries=allowed) for part in (pending[:half], pending[half:])]
        else:
            for item in pending:
                self._give_up(item, failure.reason)
        shutil.rmtree(shard.own, ignore_errors=True)
        return again

    def _keep_checkpoint(self, shard: Shard) -> None:
        """Move what a worker had under way to the folder of the run, for whoever goes on with it."""
        kept = self._alike["folder"] / f"{shard.own.name[1:]}-{CHECKPOINT}"
        with suppress(OSError):  # there may be none
            self.run.manifest.place(shard.own / CHECKPOINT, kept)
            self._kept |= dict.fromkeys(checkpoint_keys(kept), kept)

    def _give_up(self, item: LoadedStructure, reason: str) -> None:
        self.run.keep(lost_record(self.computation, item, f"not computed: {reason}."))
        self.advance(1)

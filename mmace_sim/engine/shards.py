"""A run in pieces, computed by workers: who gets what, what comes back, and what becomes of those that do not.

A piece is some minutes of work, cut when a worker is free, smaller towards the end. Its worker keeps a journal in a
folder of its own; what appears there is taken over at once, so that whoever dies, only what was under way is lost. A
piece whose worker died is computed once more, then each of its structures alone; one that kills its worker again fails.
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
from typing import Any

from mmace_sim.engine.computation import Computation
from mmace_sim.engine.journal import CHECKPOINT, FILE_NAME, SIGN_OF_LIFE, JournalTail, weights_hash
from mmace_sim.engine.progress import progress
from mmace_sim.engine.results import failed_record
from mmace_sim.engine.resume import item_key
from mmace_sim.errors import MmaceError, StructureError
from mmace_sim.executors.interface import ExecutorError, Failure, open_executor
from mmace_sim.files import append, private_folder, scratch
from mmace_sim.files.workers import known_by_folder, take_over
from mmace_sim.io.collection import LoadedStructure

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

PATIENCE: float = 30.0
"""Seconds until a result that a worker has written must be seen here: network file systems take their time."""

STALLED: float = 900.0
"""Seconds after which a worker without a sign of life, whose loss nobody reports, ends the run."""

SIGNS: float = 30.0
"""Seconds between two looks at the signs of life."""

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


def compute_shards(run: Any, computation: Computation, choice: str, *, quiet: bool) -> None:
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
                _Shards(run, computation, executor.n_workers, advance).compute(executor)


class _Shards:
    """The pieces of a run."""

    def __init__(
        self, run: Any, computation: Computation, n_workers: int, advance: Callable[..., None]
    ) -> None:
        self.run, self.computation, self.advance = run, computation, advance
        settings = computation.settings.model_dump(mode="json") | {"executor": None}
        self._alike: dict[str, Any] = {
            "property": computation.declared.reference,
            "settings": settings,
            "identity": run.identity,
            "context": computation.context,
            "folder": Path(os.path.abspath(run.folder)),
            "directory": Path.cwd(),
        }
        self._weights = {name: weights_hash(model) for name, model in run.models.items()}
        self._costs: dict[str, float] = {}
        self._waiting = [deque(sorted(part.pending, key=self._cost, reverse=True)) for part in run.parts()]
        self._pace = _Pace(n_workers, sum(self._costs.values()))
        self._known = known_by_folder(run.manifest)
        self._tails: dict[Path, JournalTail] = {}
        self._signs: dict[Path, tuple[str, float]] = {}
        self._looked = 0.0

    def compute(self, executor: Any) -> None:
        """Compute all of them."""
        from mmace_sim.engine.worker import compute_shard

        try:
            executor.map(compute_shard, self._cut(), self._finished, self._failed, self._look)
        finally:
            self._look()

    def _cost(self, item: LoadedStructure) -> float:
        """Estimated seconds of a structure; an estimate may take long itself."""
        key = item_key(item)
        if key not in self._costs:
            work = max(1, self.computation.evaluations(item)) * len(item.atoms)
            self._costs[key] = SECONDS_PER_ATOM * work + self.computation.seconds(item)
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
        return Shard(**self._alike, **more, own=own, known=known)

    def _look(self) -> None:
        """Take over what workers have finished."""
        for own in list(self._tails):
            self._take(own)
        if time.monotonic() - self._looked >= SIGNS:
            self._looked = time.monotonic()
            self._look_for_signs()

    def _look_for_signs(self) -> None:
        """End the run if a worker hangs: what it has finished is taken over already."""
        for own in self._tails:
            try:
                sign = (own / SIGN_OF_LIFE).read_text(encoding="utf-8")
            except OSError:  # not begun yet
                continue
            before, since = self._signs.get(own, ("", 0.0))
            if sign != before:
                self._signs[own] = (sign, time.monotonic())
            elif time.monotonic() - since > STALLED:
                raise ExecutorError(
                    f"a worker has shown no sign of life for {STALLED:.0f} s ({sign[:200]}), but is not reported lost. "
                    "What is finished is kept: run the same command with --resume."
                )

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

    def _failed(self, shard: Shard, failure: Failure) -> list[Shard]:
        """What to compute in place of a piece that has no end."""
        if isinstance(failure.error, MmaceError | OSError) and not isinstance(failure.error, StructureError):
            raise failure.error
        if isinstance(failure.error, ImportError) or type(failure.error).__name__ in _FOREIGN:
            raise ExecutorError(
                f"workers cannot do what they are given: {failure.reason}. Their environment must be that of this "
                "command (worker_init of the executor)."
            ) from failure.error
        self._take(shard.own)
        pending = self._pending(shard)
        progressed = len(pending) < len(shard.items)
        if pending:
            _log.warning("%d structures are left of a piece: %s", len(pending), failure.reason)
        tries = 0 if progressed and failure.lost == "block" else shard.tries + 1
        allowed = {"worker": 1, "block": MOVES}.get(failure.lost or "", 0)
        self._close(shard)
        self._known = known_by_folder(self.run.manifest)
        again: list[Shard] = []
        if pending and tries <= allowed:
            again = [replace(self._shard(pending), tries=tries)]
            with suppress(OSError):  # there may be none
                (shard.own / CHECKPOINT).replace(again[0].own / CHECKPOINT)
        elif len(pending) > 1:
            again = [self._shard([item]) for item in pending]
        else:
            for item in pending:
                self._give_up(item, failure.reason)
        shutil.rmtree(shard.own, ignore_errors=True)
        return again

    def _give_up(self, item: LoadedStructure, reason: str) -> None:
        self.run.keep(failed_record(self.computation, item, f"not computed: {reason}."))
        self.advance(1)

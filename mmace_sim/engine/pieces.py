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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmace_sim.engine.journal import FILE_NAME, JournalTail, weights_hash
from mmace_sim.engine.output import versions
from mmace_sim.errors import MmaceError, StructureError
from mmace_sim.executors.interface import Executor, ExecutorError, TaskFailure, open_executor
from mmace_sim.files import append, private_folder, scratch
from mmace_sim.files.workers import known_by_folder, take_over

if TYPE_CHECKING:
    from mmace_sim.engine.resume import Task
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


@dataclass(frozen=True, kw_only=True)
class Piece[Item]:
    """A piece of a run, as it travels to a worker.

    Attributes:
        settings: Settings of the run, plain JSON.
        identity: Hash of settings and models of the run.
        model: Name of the model.
        weights: Hash of its weights.
        items: What to compute.
        folder: Folder of the run.
        own: The worker's own folder in it.
        known: States of files that the run has written before.
        directory: Where relative paths start.
        versions: Of packages, where the run was started.
        limit: Seconds after which its worker is ended; None: never.
        tries: How often a worker died on it, or went away.
    """

    settings: dict[str, Any]
    identity: str
    model: str
    weights: str
    items: list[Item]
    folder: Path
    own: Path
    known: dict[str, Any] = field(default_factory=dict)
    directory: Path
    versions: dict[str, str]
    limit: float | None = None
    tries: int = 0


@dataclass(frozen=True)
class PieceEnd:
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


def compute_pieces(pieces: "Pieces[Any, Any]", choice: str) -> None:
    """Compute a run in pieces by the workers of an executor; none is started if there is nothing to compute.

    Args:
        pieces: Of the run.
        choice: See `mmace_sim.executors.interface.ExecutorChoice`.

    Raises:
        ExecutorError: If no workers can be had.
    """
    if pieces.waiting:
        with scratch(pieces.folder) as own, open_executor(choice, own) as executor:
            pieces.compute(executor)


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


class Pieces[Item, P: Piece[Any]]:
    """The pieces of a run. Each kind of run says what an item is, what a worker does, and what becomes of a result.

    Args:
        run: The run.
        settings: Its settings, plain JSON.
        waiting: What is to be computed. Items of an inner list stay together unless their worker is lost; no piece
            has items of two of the outer lists.
        advance: Called with how many more items are finished.

    Attributes:
        folder: Folder of the run.
        waiting: What was not yet given out.
        weights: Hash of the weights of each model.
        known: States of files that the run has written before, by folder.
    """

    function: Callable[[P], PieceEnd]
    """What a worker does."""

    def __init__(
        self,
        run: "Run | Task",
        settings: dict[str, Any],
        waiting: Iterable[Iterable[list[Item]]],
        advance: Callable[..., None],
    ) -> None:
        self.folder = Path(os.path.abspath(run.folder))
        self.waiting = [groups for groups in map(deque, waiting) if groups]
        self._run, self._advance = run, advance
        self._alike: dict[str, Any] = {
            "settings": settings | {"executor": None},
            "identity": run.identity,
            "folder": self.folder,
            "directory": Path.cwd(),
            "versions": versions(),
        }
        self.weights = {name: weights_hash(model) for name, model in run.models.items()}
        assert run.manifest is not None
        self._manifest = run.manifest
        self.known = known_by_folder(self._manifest)
        self._tails: dict[Path, JournalTail] = {}

    def key(self, item: Item) -> str:
        """What an item is called in the journal."""
        raise NotImplementedError

    def cost(self, item: Item) -> float:
        """Estimated seconds of an item."""
        raise NotImplementedError

    def make(self, items: list[Item], **alike: Any) -> P:
        """A piece of some items, with what all pieces have."""
        raise NotImplementedError

    def keep(self, record: dict[str, Any]) -> None:
        """Keep what a worker has found, in the journal of the run."""
        raise NotImplementedError

    def lost(self, item: Item, reason: str) -> dict[str, Any]:
        """What to keep of an item without a result."""
        raise NotImplementedError

    def save(self, piece: P) -> None:
        """Keep what a worker that was lost had under way."""

    def compute(self, executor: Executor) -> None:
        """Compute all of them."""
        left = sum(self._costs(group) for groups in self.waiting for group in groups)
        self._pace, self._patience = _Pace(executor.n_workers, left), executor.patience
        try:
            executor.map(self.function, self._cut(), self._finished, self._failed, self._look)
        finally:
            self._look()

    def _costs(self, items: Iterable[Item]) -> float:
        return sum(map(self.cost, items))

    def _cut(self) -> Iterator[P]:
        """The next piece, whenever a worker is free."""
        for waiting in self.waiting:
            while waiting:
                items: list[Item] = []
                most, cost = self._pace.next(), 0.0
                while waiting and (not items or cost + self._costs(waiting[0]) <= most):
                    group = waiting.popleft()
                    items += group
                    cost += self._costs(group)
                self._pace.left -= cost
                yield self._piece(items)

    def _piece(self, items: list[Item], tries: int = 0) -> P:
        own = private_folder(self.folder)
        self._tails[own] = JournalTail(own / FILE_NAME)
        limit = self._pace.limit(self._costs(items), self._patience)
        return self.make(items, **self._alike, own=own, limit=limit, tries=tries)

    def _look(self) -> None:
        """Take over what workers have finished."""
        for own in list(self._tails):
            self._take(own)

    def _take(self, own: Path) -> None:
        for record in self._tails[own].new():
            if "key" in record and record["key"] not in self._run.records:
                self.keep({key: value for key, value in record.items() if key != "check"})
                self._advance(1)

    def _close(self, piece: P) -> None:
        """Take over the files of a piece, and what its worker said."""
        del self._tails[piece.own]
        take_over(self._manifest, piece.own)
        log = piece.own / "log.txt"
        if log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            said = [
                line for line in lines if " INFO " not in line
            ]  # results are logged as they are taken over
            append(self.folder / "log.txt", "".join(said))

    def _pending(self, piece: P) -> list[Item]:
        return [item for item in piece.items if self.key(item) not in self._run.records]

    def _finished(self, piece: P, end: PieceEnd) -> None:
        deadline = time.monotonic() + PATIENCE
        self._take(piece.own)
        while self._tails[piece.own].n_lines < end.n_lines and time.monotonic() < deadline:
            time.sleep(0.1)
            self._take(piece.own)
        self._pace.measured(self._costs(piece.items), end.seconds)
        for item in self._pending(piece):
            self._give_up(item, "its worker has finished, but left no result")
        self._close(piece)
        shutil.rmtree(piece.own, ignore_errors=True)

    def _failed(self, piece: P, failure: TaskFailure) -> list[P]:
        """What to compute in place of a piece that has no end."""
        check_failure(failure)
        self._take(piece.own)
        pending = self._pending(piece)
        progressed = len(pending) < len(piece.items)
        if pending:
            _log.warning("%d structures are left of a piece: %s", len(pending), failure.reason)
        tries = 0 if progressed and failure.lost == "block" else piece.tries + 1
        allowed = {"worker": 1, "block": MOVES}.get(failure.lost or "", 0)
        self.save(piece)
        self._close(piece)
        self.known = known_by_folder(self._manifest)
        again: list[P] = []
        if pending and tries <= allowed:
            again = [self._piece(pending, tries)]
        elif len(pending) > 1:  # the half with what killed its worker dies once more, the other does not
            half = len(pending) // 2
            again = [self._piece(part, allowed) for part in (pending[:half], pending[half:])]
        else:
            for item in pending:
                self._give_up(item, failure.reason)
        shutil.rmtree(piece.own, ignore_errors=True)
        return again

    def _give_up(self, item: Item, reason: str) -> None:
        self.keep(self.lost(item, f"not computed: {reason}."))
        self._advance(1)

"""The pieces of a run of a property."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, override

from mmace_sim.engine.checkpoint import checkpoint_keys, kept_checkpoints
from mmace_sim.engine.computation import Computation
from mmace_sim.engine.journal import CHECKPOINT
from mmace_sim.engine.pieces import SECONDS_PER_ATOM, Piece, Pieces, compute_pieces
from mmace_sim.engine.progress import progress
from mmace_sim.engine.results import lost_record
from mmace_sim.engine.resume import item_key
from mmace_sim.io.collection import LoadedStructure

if TYPE_CHECKING:
    from mmace_sim.engine.run import Run


@dataclass(frozen=True, kw_only=True)
class Shard(Piece[LoadedStructure]):
    """A piece of a run of a property.

    Attributes:
        property: Where the property is declared.
        context: See `mmace_sim.engine.computation.Computation`.
        places: Folder of each structure, by its name.
        checkpoints: Files of what is under way that hold some of the structures.
    """

    property: str
    context: dict[str, Any]
    places: dict[str, Path]
    checkpoints: tuple[Path, ...] = ()


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
    with progress(computation.verb, len(run.pending), "structures", quiet=quiet) as advance:
        compute_pieces(_Shards(run, computation, advance), choice)


def estimated_seconds(computation: Computation, item: LoadedStructure) -> float:
    """About how long a structure takes on one core, in s.

    Args:
        computation: What is computed.
        item: The structure, with moments.
    """
    work = max(1, computation.evaluations(item)) * len(item.atoms)
    return SECONDS_PER_ATOM * work + computation.seconds(item)


class _Shards(Pieces[LoadedStructure, Shard]):
    """Structures of one model at a time, the largest first."""

    def __init__(self, run: "Run", computation: Computation, advance: Callable[..., None]) -> None:
        from mmace_sim.engine.worker import compute_shard

        self.run, self.computation, self.function = run, computation, compute_shard
        self._seconds: dict[str, float] = {}
        ordered = [sorted(part.pending, key=self.cost, reverse=True) for part in run.parts()]
        waiting = [[[item] for item in items] for items in ordered]
        super().__init__(run, computation.settings.model_dump(mode="json"), waiting, advance)
        self._kept = {key: path for path in kept_checkpoints(run.folder) for key in checkpoint_keys(path)}

    @override
    def key(self, item: LoadedStructure) -> str:
        return item_key(item)

    @override
    def cost(self, item: LoadedStructure) -> float:
        """Estimated seconds of a structure; an estimate may take long itself."""
        key = item_key(item)
        if key not in self._seconds:
            self._seconds[key] = estimated_seconds(self.computation, item)
        return self._seconds[key]

    @override
    def make(self, items: list[LoadedStructure], **alike: Any) -> Shard:
        folders = self.run.folders
        places = {item.name: Path(os.path.abspath(folders[item.name])) for item in items}
        known: dict[str, Any] = {}
        for place in places.values():
            known |= self.known.get(place.name, {})
        kept = [self._kept[key] for item in items if (key := item_key(item)) in self._kept]
        return Shard(
            **alike,
            items=items,
            model=items[0].model,
            weights=self.weights[items[0].model],
            property=self.computation.declared.reference,
            context=self.computation.context,
            places=places,
            known=known,
            checkpoints=tuple(dict.fromkeys(kept)),
        )

    @override
    def keep(self, record: dict[str, Any]) -> None:
        self.run.keep(record)

    @override
    def lost(self, item: LoadedStructure, reason: str) -> dict[str, Any]:
        return lost_record(self.computation, item, reason)

    @override
    def save(self, piece: Shard) -> None:
        kept = self.folder / f"{piece.own.name[1:]}-{CHECKPOINT}"
        with suppress(OSError):  # there may be none
            self.run.manifest.place(piece.own / CHECKPOINT, kept)
            self._kept |= dict.fromkeys(checkpoint_keys(kept), kept)

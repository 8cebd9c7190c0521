"""Predictions of a model for `mmace-sim evaluate`, computed by workers."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, override

from mmace_sim.engine.inputs import load_run_model
from mmace_sim.engine.journal import Journal
from mmace_sim.engine.machine import quiet_imports, use_threads
from mmace_sim.engine.pieces import SECONDS_PER_ATOM, Piece, PieceEnd, Pieces, compute_pieces
from mmace_sim.engine.progress import progress
from mmace_sim.engine.resume import Task
from mmace_sim.engine.worker import arrive, at_work, check_weights
from mmace_sim.io.frames import Frame
from mmace_sim.training.evaluation.evaluate import supported
from mmace_sim.training.evaluation.prediction import predict, to_record
from mmace_sim.training.evaluation.settings import EvaluateSettings
from mmace_sim.training.evaluation.timing import Clock

Numbered = tuple[int, Frame]
"""A structure with its number among all."""


def predict_piece(piece: Piece[Numbered]) -> PieceEnd:
    """What the model gives for some structures, in the batches of a run by one process.

    Args:
        piece: The structures.

    Raises:
        ModelFileError: If the model cannot be loaded here, or is another one.
        OutputError: If the disk is full.
    """
    arrive(piece)
    settings = EvaluateSettings.model_validate(piece.settings)
    with quiet_imports():
        model = _loaded(settings.model_dump_json(), piece.weights)
    use_threads(settings.threads)
    clock, done = Clock(model, settings.batch_size), []

    def work(journal: Journal) -> None:
        for _, group in groupby(piece.items, lambda item: item[0] // settings.batch_size):
            frames = dict(group)
            found = predict(model, list(frames.items()), clock, settings.magforce_elements)
            for index, one in found.items():
                journal.append({"key": str(index)} | to_record(frames[index], one))
                done.append(index)

    return at_work(piece, "evaluate", work, lambda: len(done))


@lru_cache(maxsize=1)
def _loaded(settings: str, weights: str) -> Any:
    """The model on its device: loaded once by each worker."""
    given = EvaluateSettings.model_validate_json(settings)
    model = load_run_model(given)
    check_weights(model, given.model, weights)
    return model


def predict_all(task: Task, settings: EvaluateSettings, frames: Sequence[Frame], *, quiet: bool) -> None:
    """Predict all structures that a run does not know.

    Args:
        task: The run; it keeps what is found, as `mmace_sim.training.evaluation.prediction.to_record` says.
        settings: Its settings.
        frames: All structures.
        quiet: Show no progress.

    Raises:
        ExecutorError: If no workers can be had.
    """
    assert settings.executor is not None
    (model,) = task.models.values()
    usable, _ = supported(model, list(enumerate(frames)))
    pending = [item for item in usable if str(item[0]) not in task.records]
    batches = [list(group) for _, group in groupby(pending, lambda item: item[0] // settings.batch_size)]
    with progress("Predicting", len(pending), "structures", quiet=quiet) as advance:
        compute_pieces(_Predictions(task, settings, batches, advance), settings.executor)


class _Predictions(Pieces[Numbered, Piece[Numbered]]):
    """Whole batches in the order of the input."""

    def __init__(
        self,
        task: Task,
        settings: EvaluateSettings,
        batches: list[list[Numbered]],
        advance: Callable[..., None],
    ) -> None:
        super().__init__(task, settings.model_dump(mode="json"), [batches], advance)
        self.task, self.function = task, predict_piece

    @override
    def key(self, item: Numbered) -> str:
        return str(item[0])

    @override
    def cost(self, item: Numbered) -> float:
        return SECONDS_PER_ATOM * len(item[1].atoms)

    @override
    def make(self, items: list[Numbered], **alike: Any) -> Piece[Numbered]:
        ((name, weights),) = self.weights.items()
        return Piece(**alike, items=items, model=name, weights=weights)

    @override
    def keep(self, record: dict[str, Any]) -> None:
        self.task.store(record["key"], record)

    @override
    def lost(self, item: Numbered, reason: str) -> dict[str, Any]:
        return {"key": self.key(item)} | to_record(item[1], reason)

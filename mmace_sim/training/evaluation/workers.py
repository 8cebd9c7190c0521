"""Predictions of a model for `mmace_sim.training.evaluation.evaluate`, computed by workers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmace_sim.engine.inputs import load_run_model
from mmace_sim.errors import DataError, MmaceError
from mmace_sim.executors.interface import Executor, TaskFailure
from mmace_sim.io.frames import Frame
from mmace_sim.training.evaluation.evaluate import Prediction, evaluate_frames
from mmace_sim.training.evaluation.settings import EvaluateSettings

BATCHES: int = 8
"""Batches of a piece."""

_models: dict[str, Any] = {}


@dataclass(frozen=True)
class Piece:
    """Some structures, as they travel to a worker.

    Attributes:
        settings: Of the evaluation, as JSON.
        frames: The structures.
        indices: Their indices among all.
        tries: How often a worker was lost on it.
    """

    settings: str
    frames: list[Frame]
    indices: list[int]
    tries: int = 0


def predict_piece(piece: Piece) -> dict[int, Prediction]:
    """What the model gives for some structures; those that it cannot take are left out."""
    settings = EvaluateSettings.model_validate_json(piece.settings)
    if piece.settings not in _models:
        _models[piece.settings] = load_run_model(settings)
    found: dict[int, Prediction] = {}
    evaluate_frames(
        _models[piece.settings],
        piece.frames,
        batch_size=settings.batch_size,
        magforce_elements=settings.magforce_elements,
        on_predicted=found.update,
    )
    return {piece.indices[k]: prediction for k, prediction in found.items()}


def predict_all(
    executor: Executor,
    settings: EvaluateSettings,
    frames: Sequence[Frame],
    known: Mapping[int, Prediction],
    store: Callable[[dict[int, Prediction]], None],
) -> None:
    """Predict all structures that are not known.

    Args:
        executor: Who computes.
        settings: Of the evaluation.
        frames: All structures.
        known: Predictions of an earlier run.
        store: Called with those of each piece.

    Raises:
        DataError: If a structure ends the process that computes it.
        ExecutorError: If no workers can be had.
    """
    text = settings.model_copy(update={"executor": None}).model_dump_json()
    waiting = [index for index in range(len(frames)) if index not in known]
    size = BATCHES * settings.batch_size

    def cut() -> Iterator[Piece]:
        for start in range(0, len(waiting), size):
            indices = waiting[start : start + size]
            yield Piece(text, [frames[index] for index in indices], indices)

    def failed(piece: Piece, failure: TaskFailure) -> list[Piece]:
        if failure.lost is None:
            raise failure.error if isinstance(failure.error, MmaceError) else DataError(failure.reason)
        if piece.tries < 2:
            return [replace(piece, tries=piece.tries + 1)]
        if len(piece.indices) == 1:
            raise DataError(f"{piece.frames[0].source}: {failure.reason}. Leave this structure out.")
        return [
            Piece(text, [f], [i], piece.tries - 1) for f, i in zip(piece.frames, piece.indices, strict=True)
        ]

    executor.map(predict_piece, cut(), lambda _, found: store(found), failed)

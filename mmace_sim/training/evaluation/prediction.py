"""What a model gives for the structures of a batch, and how that is kept in a journal."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mmace_sim.engine.journal import decode_array, encode_array
from mmace_sim.io.frames import Frame
from mmace_sim.model.interface import Potential
from mmace_sim.training.evaluation.timing import Clock

Prediction = dict[str, np.ndarray]
"""Energy (one value) and derivatives of one structure, by the names of the labels."""

_log = logging.getLogger(__name__)


def predict(
    model: Potential,
    frames: Sequence[tuple[int, Frame]],
    clock: Clock,
    magforce_elements: Sequence[str] | None = None,
) -> dict[int, Prediction | str]:
    """Predictions of a batch; if it raises, of its halves, until the culprit is alone.

    Args:
        model: Magnetic model.
        frames: Structures with their numbers.
        clock: Makes graphs and predictions.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.

    Returns:
        By number, in any order: the prediction, or why there is none.
    """
    found: dict[int, Prediction | str] = {}
    left = [list(frames)]
    while left:
        part = left.pop()
        try:
            batch = clock.graphs(model, [frame for _, frame in part], magforce_elements)
            sizes = batch.n_atoms.tolist()
            values = {label: _split(v, sizes) for label, v in clock.predict(model, batch).items()}
        except (ImportError, OSError):  # of this machine, not of a structure
            raise
        except Exception as error:
            from mmace_sim.engine.batching import failure_message  # brings TorchSim

            which = part[0][1].source if len(part) == 1 else f"a batch of {len(part)} structures"
            _log.warning("%s raised %s: %s", which, type(error).__name__, error)
            if len(part) == 1:
                found[part[0][0]] = failure_message(error)
            else:
                half = len(part) // 2
                left += [part[half:], part[:half]]
            continue
        for k, (index, _) in enumerate(part):
            found[index] = {label: value[k] for label, value in values.items()}
    return found


def to_record(frame: Frame, found: Prediction | str) -> dict[str, Any]:
    """The line of the journal of a structure.

    Args:
        frame: The structure.
        found: Its prediction, or why there is none.
    """
    if isinstance(found, str):
        return {"entry": {"name": frame.source, "status": "failed", "message": found}}
    return {"prediction": {label: encode_array(values) for label, values in found.items()}}


def from_record(record: dict[str, Any]) -> Prediction | str:
    """The prediction of a structure, or why there is none.

    Args:
        record: From `to_record`.
    """
    if "prediction" not in record:
        return str(record["entry"]["message"])
    return {label: decode_array(values) for label, values in record["prediction"].items()}


def _split(values: Tensor, sizes: list[int]) -> list[np.ndarray]:
    """Values of each structure of a batch, in float64."""
    array = values.detach().double().cpu().numpy()
    if array.ndim == 2:  # of atoms; energies have one axis and stresses three
        return np.split(array, np.cumsum(sizes)[:-1])
    return [array[k : k + 1] for k in range(len(array))]

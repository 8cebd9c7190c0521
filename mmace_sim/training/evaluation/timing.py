"""How long a model takes for labelled structures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmace_sim.io.frames import LABELS, Frame
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.interface import Potential
from mmace_sim.training.data.dataset import GraphDataset, LabelledBatch, collate


@dataclass
class Timing:
    """How long it took.

    Attributes:
        model_seconds: Energies and derivatives, after one structure to warm up.
        graph_seconds: Neighbour lists.
        n_structures: Structures evaluated.
        n_atoms: Their atoms.
        derivatives: Which derivatives were computed for at least some of them.
        device: Such as "cpu" or the name of a GPU.
        threads: CPU threads of torch.
        dtype: Precision.
        batch_size: Structures per batch.
    """

    model_seconds: float
    graph_seconds: float
    n_structures: int
    n_atoms: int
    derivatives: list[str]
    device: str
    threads: int
    dtype: str
    batch_size: int

    def as_dict(self) -> dict[str, float | int | str | list[str]]:
        """Rates and what they hold for, as plain values for JSON."""
        return {
            "seconds_per_structure": self.model_seconds / max(self.n_structures, 1),
            "milliseconds_per_atom": 1000 * self.model_seconds / max(self.n_atoms, 1),
            "graph_seconds_per_structure": self.graph_seconds / max(self.n_structures, 1),
        } | vars(self)


class Clock:
    """Makes graphs and predictions, and measures how long that takes.

    Args:
        model: Magnetic model.
        batch_size: Structures per batch, for the record.
    """

    def __init__(self, model: Potential, batch_size: int) -> None:
        self.device, self.dtype = model.device, model.dtype
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        dtype = str(self.dtype).removeprefix("torch.")
        self.timing = Timing(0.0, 0.0, 0, 0, [], name, torch.get_num_threads(), dtype, batch_size)

    def graphs(
        self, model: Potential, frames: list[Frame], magforce_elements: Sequence[str] | None
    ) -> LabelledBatch:
        """A batch on the device of the model.

        Args:
            model: Magnetic model.
            frames: Structures.
            magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.
        """
        start = time.perf_counter()
        dataset = GraphDataset(
            frames, float(model.r_max), dtype=self.dtype, magforce_elements=magforce_elements
        )
        batch = collate(dataset.samples).to(self.device)
        self.timing.graph_seconds += self._now() - start
        if not self.timing.n_structures:  # kernels are chosen and compiled on first use
            _derivatives(model, collate(dataset.samples[:1]).to(self.device))
        return batch

    def predict(self, model: Potential, batch: LabelledBatch) -> dict[str, Tensor]:
        """Energy and those derivatives that the batch has labels of.

        Args:
            model: Magnetic model.
            batch: From `graphs`.
        """
        start = self._now()
        prediction = _derivatives(model, batch)
        self.timing.model_seconds += self._now() - start
        self.timing.n_structures += len(batch.n_atoms)
        self.timing.n_atoms += int(batch.n_atoms.sum())
        new = [x for x in LABELS[1:] if x in prediction and x not in self.timing.derivatives]
        self.timing.derivatives += new
        return prediction

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _derivatives(model: Potential, batch: LabelledBatch) -> dict[str, Tensor]:
    """Energy and those derivatives of which the batch has a label."""
    return evaluate(model, batch.graph, **{f"compute_{label}": batch.has(label) for label in LABELS[1:]})

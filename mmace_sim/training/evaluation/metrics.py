"""Errors of a model against reference labels, overall and per config_type, in the units people know."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmace_sim.io.frames import LABELS
from mmace_sim.training.data.dataset import LabelledBatch
from mmace_sim.training.distributed import sum_over_processes

UNITS: dict[str, str] = {
    "energy": "meV/atom",
    "forces": "meV/Å",
    "stress": "meV/Å³",
    "magforces": "meV/μB",
}
"""Unit of each label's errors."""

SHORT: dict[str, str] = {"energy": "E", "forces": "F", "stress": "S", "magforces": "M"}
"""Letter of each label in the log line of an epoch."""

MILLI = 1000.0


@dataclass(frozen=True)
class LabelError:
    """Errors of one label over some structures.

    Attributes:
        mae: Mean absolute error (of components).
        rmse: Root mean square error (of components).
        count: Number of components compared.
        unit: Unit of both.
    """

    mae: float
    rmse: float
    count: int
    unit: str

    def as_dict(self) -> dict[str, float | int | str]:
        """Plain numbers for JSON."""
        return {"mae": self.mae, "rmse": self.rmse, "count": self.count, "unit": self.unit}


ErrorTable = dict[str, dict[str, LabelError]]


class MetricAccumulator:
    """Collects errors batch by batch.

    Args:
        groups: Names that the batches' `config_idx` counts, or the heads of the model.
        by_head: Whether the groups are heads.
    """

    def __init__(self, groups: list[str], *, by_head: bool = False) -> None:
        self.groups = groups
        self.by_head = by_head
        n = len(groups)
        self._sums = {label: torch.zeros(3, n, dtype=torch.float64) for label in LABELS}

    def update(self, prediction: dict[str, Tensor], batch: LabelledBatch) -> None:
        """Add the errors of a batch.

        Args:
            prediction: Output of `evaluate`; labels that were not predicted are left out.
            batch: Structures with their labels.
        """
        for label in LABELS:
            if label not in prediction:
                continue
            errors = batch.errors(prediction, label)
            value = errors.value.detach().double().cpu()
            groups = batch.graph.head_idx if self.by_head else batch.config_idx
            assert groups is not None  # graphs of a model with several heads say which is whose
            kind = groups[errors.system_idx].cpu()
            for row, weight in enumerate((torch.ones_like(value), value.abs(), value * value)):
                self._sums[label][row].index_add_(0, kind, weight)

    def reduce(self, device: torch.device) -> None:
        """Add up what the processes that train together collected.

        Args:
            device: The device that trains.
        """
        self._sums = {k: sum_over_processes(v.to(device)).cpu() for k, v in self._sums.items()}

    def overall(self) -> dict[str, LabelError]:
        """Errors over everything, for the labels that occurred."""
        return self._table({label: sums.sum(dim=1) for label, sums in self._sums.items()})

    def by_group(self) -> ErrorTable:
        """Errors per config_type or head, for the labels that occurred in it."""
        tables = {}
        for k, name in enumerate(self.groups):
            table = self._table({label: sums[:, k] for label, sums in self._sums.items()})
            if table:
                tables[name] = table
        return tables

    @staticmethod
    def _table(sums: dict[str, Tensor]) -> dict[str, LabelError]:
        table = {}
        for label, (count, absolute, square) in ((k, v.tolist()) for k, v in sums.items()):
            if count > 0:
                mae, rmse = MILLI * absolute / count, MILLI * (square / count) ** 0.5
                table[label] = LabelError(mae, rmse, int(count), UNITS[label])
        return table


def table_as_dict(table: dict[str, LabelError]) -> dict[str, dict[str, float | int | str]]:
    """Errors of several labels as plain numbers."""
    return {label: error.as_dict() for label, error in table.items()}


def error_line(table: dict[str, LabelError]) -> str:
    """Mean absolute errors of one set in a line, e.g. `E 4.2 meV/atom  F 55.1 meV/Å`."""
    return "  ".join(f"{SHORT[label]} {error.mae:.1f} {error.unit}" for label, error in table.items())

"""What a run writes while it goes: one line in the log and one row of `metrics.csv` per epoch."""

import csv
import logging
import time
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from mmace_sim.training.frames import LABELS
from mmace_sim.training.metrics import error_line
from mmace_sim.training.module import MagneticTraining

logger = logging.getLogger(__name__)

COLUMNS: list[str] = [
    "epoch",
    "step",
    "lr",
    "train_loss",
    "valid_loss",
    *(f"valid_{label}_{kind}" for label in LABELS for kind in ("mae", "rmse")),
    "seconds",
]
"""Columns of `metrics.csv`; errors in meV/atom, meV/Å, meV/Å³ and meV/μB."""


class EpochLog(Callback):
    """Log line and row of `metrics.csv` after every epoch.

    Args:
        path: The CSV file; rows of a run that is resumed are kept.
        on_epoch: Called with the epoch's row, for progress displays.
    """

    def __init__(self, path: Path, on_epoch: Callable[[dict[str, float]], None] | None = None) -> None:
        self.path = path
        self.on_epoch = on_epoch
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: MagneticTraining) -> None:  # noqa: ARG002
        """Keep the rows of the epochs before this run starts, drop the others."""
        rows = []
        if self.path.exists():
            with self.path.open(newline="") as stream:
                rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) < trainer.current_epoch]
        with self.path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: MagneticTraining) -> None:  # noqa: ARG002
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: MagneticTraining) -> None:
        """Write the epoch down."""
        row: dict[str, float] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": pl_module.train_loss,
            "seconds": round(time.perf_counter() - self._started, 3),
        }
        if pl_module.valid_errors:
            row["valid_loss"] = pl_module.valid_loss
        for label, error in pl_module.valid_errors.items():
            row[f"valid_{label}_mae"] = error.mae
            row[f"valid_{label}_rmse"] = error.rmse
        with self.path.open("a", newline="") as stream:
            csv.DictWriter(stream, COLUMNS).writerow(row)
        valid = ""
        if pl_module.valid_errors:
            valid = (
                f"  valid loss {pl_module.valid_loss:.4f}  valid MAE: {error_line(pl_module.valid_errors)}"
            )
        head = (row["epoch"], row["lr"], row["train_loss"])
        logger.info("epoch %d  lr %.2e  train loss %.4f%s  %.1f s", *head, valid, row["seconds"])
        if self.on_epoch is not None:
            self.on_epoch(row)

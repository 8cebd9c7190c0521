"""What a run writes while it goes: one line in the log and one row of `metrics.csv` per epoch."""

import csv
import io
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmace_sim.base.extras import extra
from mmace_sim.files import append, write_text
from mmace_sim.io.frames import LABELS
from mmace_sim.training.data.dataset import LabelledBatch
from mmace_sim.training.distributed import is_main
from mmace_sim.training.evaluation.metrics import error_line
from mmace_sim.training.loggers import list_logger_files
from mmace_sim.training.module import MagneticTraining, training_of

with extra("train", "Training"):
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.utilities.types import STEP_OUTPUT

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
    """Log line and row of `metrics.csv` after every epoch, also sent to the loggers.

    Args:
        path: The CSV file; rows of a run that is resumed are kept.
        on_epoch: Called with the epoch's row, for progress displays.
    """

    def __init__(self, path: Path, on_epoch: Callable[[dict[str, float]], None] | None = None) -> None:
        self.path = path
        self.on_epoch = on_epoch
        self._started = 0.0

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the rows of the epochs before this run starts, drop the others."""
        rows = []
        if self.path.exists():
            with self.path.open(newline="") as stream:
                rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) < trainer.current_epoch]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
        self._started = time.perf_counter()
        for log in trainer.loggers:
            log.log_hyperparams(training_of(pl_module).config.model_dump(mode="json"))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch down."""
        module = training_of(pl_module)
        row: dict[str, float] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": module.train_loss(),
            "seconds": round(time.perf_counter() - self._started, 3),
        }
        if module.valid_errors:
            row["valid_loss"] = module.valid_loss
        for label, error in module.valid_errors.items():
            row[f"valid_{label}_mae"] = error.mae
            row[f"valid_{label}_rmse"] = error.rmse
        if is_main():
            self._write(trainer, row, module)

    @rank_zero_only
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Know the files of the loggers as they were left."""
        for log in trainer.loggers:
            log.save()
        list_logger_files(trainer.loggers)

    def _write(self, trainer: Trainer, row: dict[str, float], pl_module: MagneticTraining) -> None:
        text = io.StringIO(newline="")
        csv.DictWriter(text, COLUMNS).writerow(row)
        append(self.path, text.getvalue())
        valid = ""
        if pl_module.valid_errors:
            valid = (
                f"  valid loss {pl_module.valid_loss:.4f}  valid MAE: {error_line(pl_module.valid_errors)}"
            )
        head = (row["epoch"], row["lr"], row["train_loss"])
        logger.info("epoch %d  lr %.2e  train loss %.4f%s  %.1f s", *head, valid, row["seconds"])
        for name, errors in pl_module.valid_errors_by_head.items() if valid else ():
            logger.info("epoch %d  head %s  valid MAE: %s", row["epoch"], name, error_line(errors))
        for log in trainer.loggers:
            log.log_metrics(row, step=trainer.current_epoch)
        list_logger_files(trainer.loggers)
        if self.on_epoch is not None:
            self.on_epoch(row)


@dataclass(frozen=True)
class StepReport:
    """How far an epoch is, for progress displays.

    Attributes:
        epoch: Epoch, from 0.
        step: Steps of it that are done.
        n_steps: Steps that it has.
        rate: Structures per second, of all processes together.
    """

    epoch: int
    step: int
    n_steps: int
    rate: float


class StepProgress(Callback):
    """Tells a progress display about every step.

    Args:
        on_step: The display.
    """

    def __init__(self, on_step: Callable[[StepReport], None]) -> None:
        self.on_step = on_step
        self._started, self._first = 0.0, 0

    def on_train_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: LabelledBatch,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Start the clock with the first step, which need not be the first of its epoch."""
        if not self._started or batch_idx == 0:
            self._started, self._first = time.perf_counter(), batch_idx

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,  # noqa: ARG002
        batch: LabelledBatch,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Report the step."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        rate = (batch_idx + 1 - self._first) * training_of(pl_module).config.trainer.batch_size / seconds
        n_steps = int(trainer.num_training_batches)
        self.on_step(StepReport(trainer.current_epoch, batch_idx + 1, n_steps, rate))

"""The Lightning module: what happens in one step of training and of validation."""

import copy
import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mmace_sim.errors import ConfigError
from mmace_sim.model.architectures import AnyModel
from mmace_sim.model.derivatives import evaluate
from mmace_sim.training.config import TrainConfig
from mmace_sim.training.dataset import LabelledBatch
from mmace_sim.training.loss import TotalLoss, build_loss
from mmace_sim.training.metrics import LabelError, MetricAccumulator
from mmace_sim.training.optim import MONITOR, build_optimizer, build_scheduler, update_average


def predict(model: AnyModel, batch: LabelledBatch, labels: set[str], *, training: bool) -> dict[str, Tensor]:
    """Energy and those derivatives of it that are asked for and of which the batch has a label.

    Args:
        model: Magnetic model.
        batch: Structures with labels.
        labels: Labels of interest.
        training: Keep the graph, so that the weights get gradients.
    """
    wanted = {label: label in labels and batch.has(label) for label in ("forces", "stress", "magforces")}
    with torch.enable_grad():
        return evaluate(
            model,
            batch.graph,
            compute_forces=wanted["forces"],
            compute_stress=wanted["stress"],
            compute_magforces=wanted["magforces"],
            training=training,
        )


class MagneticTraining(LightningModule):
    """A model, the moving average of its weights, and the loss.

    Args:
        model: Magnetic model with its reference energies set.
        config: The run.
        config_types: Names that the batches' `config_idx` counts.
        steps_per_epoch: Steps of an epoch.
    """

    def __init__(
        self, model: AnyModel, config: TrainConfig, config_types: list[str], steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.model = model
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.loss: TotalLoss = build_loss(config.loss)
        self.labels = {term.label for term in self.loss.terms}
        self.config = config
        self.config_types = config_types
        self.steps_per_epoch = steps_per_epoch
        self.valid_loss = float("nan")
        self.valid_errors: dict[str, LabelError] = {}
        self._sums = [0.0, 0.0]
        self._valid_sums = [0.0, 0.0]
        self._metrics = MetricAccumulator(config_types)
        decay = config.optimizer.ema_decay
        self.validated = self.averaged if decay > 0.0 else self.model

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimiser and schedule (called by Lightning)."""
        optimizer = build_optimizer(self.model, self.config.optimizer)
        trainer = self.config.trainer
        scheduler = build_scheduler(
            optimizer, self.config.optimizer, self.steps_per_epoch, trainer.max_epochs, trainer.valid_every
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch's sums and validation."""
        self._sums = [0.0, 0.0]
        self.valid_errors = {}

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:  # noqa: ARG002 Lightning's signature
        """Loss of one batch."""
        loss = self.loss(predict(self.model, batch, self.labels, training=True), batch)
        self._sums[0] += float(loss.detach()) * batch.graph.n_systems
        self._sums[1] += batch.graph.n_systems
        return loss

    def on_train_batch_end(self, *args: Any) -> None:  # noqa: ARG002
        """Update the moving average."""
        if self.validated is self.averaged:
            decay = self.config.optimizer.ema_decay
            update_average(self.averaged.parameters(), self.model.parameters(), decay, self.global_step)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._metrics = MetricAccumulator(self.config_types)
        self._valid_sums = [0.0, 0.0]

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:  # noqa: ARG002
        """Loss and errors of the averaged weights on one batch."""
        prediction = predict(self.validated, batch, self.labels, training=False)
        loss = float(self.loss(prediction, batch))
        self._valid_sums[0] += loss * batch.graph.n_systems
        self._valid_sums[1] += batch.graph.n_systems
        self._metrics.update(prediction, batch)

    def on_validation_epoch_end(self) -> None:
        """Errors over the whole validation set."""
        self.valid_loss = self._valid_sums[0] / max(self._valid_sums[1], 1.0)
        self.valid_errors = self._metrics.overall()
        self.log(MONITOR, self.valid_loss)

    @property
    def train_loss(self) -> float:
        """Mean loss of the epoch."""
        return self._sums[0] / max(self._sums[1], 1.0)

    def on_train_epoch_end(self) -> None:
        """Stop a run that diverged.

        Raises:
            ConfigError: If the loss is not finite.
        """
        if not math.isfinite(self.train_loss):
            raise ConfigError(
                f"the loss became {self.train_loss} in epoch {self.current_epoch}: lower optimizer.lr or "
                "optimizer.gradient_clip, or look for outliers in the data"
            )

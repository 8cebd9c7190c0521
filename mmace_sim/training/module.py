"""The Lightning module: what happens in one step of training and of validation."""

import copy
import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from mmace_sim.base.extras import extra
from mmace_sim.errors import ConfigError
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.derivatives import evaluate
from mmace_sim.training.config import TrainConfig
from mmace_sim.training.data.augment import Augment
from mmace_sim.training.data.dataset import GraphDataset, LabelledBatch
from mmace_sim.training.data.sampling import ShareSampler, share_loader
from mmace_sim.training.distributed import is_main, sum_over_processes, world_size
from mmace_sim.training.evaluation.metrics import ErrorTable, LabelError, MetricAccumulator
from mmace_sim.training.loss import TotalLoss, build_loss
from mmace_sim.training.optim import (
    build_optimizer,
    build_scheduler,
    restart_plateau,
    stage_two_lr,
    update_average,
)

with extra("train", "Training"):
    from lightning.pytorch import LightningModule
    from lightning.pytorch.loops.progress import _Progress
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig


def predict(
    model: MagneticModel, batch: LabelledBatch, labels: set[str], *, training: bool
) -> dict[str, Tensor]:
    """Energy and those derivatives of it that are asked for and of which the batch has a label.

    Args:
        model: Magnetic model.
        batch: Structures with labels.
        labels: Labels of interest.
        training: Keep the graph, so that the weights get gradients.
    """
    derivatives = ("forces", "stress", "magforces")
    wanted = {f"compute_{label}": label in labels and batch.has(label) for label in derivatives}
    with torch.enable_grad():
        return evaluate(model, batch.graph, **wanted, training=training)


def _processed(progress: _Progress) -> int:
    return progress.current.processed  # type: ignore[attr-defined]  # Lightning declares a base class of what it has


class MagneticTraining(LightningModule):
    """A model, the moving average of its weights, and the loss.

    Args:
        model: Magnetic model with its reference energies set.
        config: The run.
        train_set: Structures to train on.
        config_types: Names that the batches' `config_idx` counts.
    """

    def __init__(
        self,
        model: MagneticModel,
        config: TrainConfig,
        train_set: GraphDataset,
        config_types: list[str],
    ) -> None:
        super().__init__()
        self.model = model
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.validated = self.averaged if config.optimizer.ema_decay > 0.0 else self.model
        self.config = config
        self.train_set = train_set
        self.config_types = config_types
        weights = None if config.stage_two is None else config.stage_two.weights
        self.losses: tuple[TotalLoss, TotalLoss] = (
            build_loss(config.loss),
            build_loss(config.loss, weights),
        )
        self.labels = {term.label for loss in self.losses for term in loss.terms}
        self.valid_loss = float("nan")
        self.valid_errors: dict[str, LabelError] = {}
        self.valid_errors_by_head: ErrorTable = {}
        self._metrics = self._new_metrics()
        self._sums = torch.zeros(2, dtype=torch.float64)
        self._valid_sums = torch.zeros(0, 2, dtype=torch.float64)

    @property
    def loss(self) -> TotalLoss:
        """Loss of the present epoch."""
        second = self.config.stage_two
        return self.losses[second is not None and self.current_epoch >= second.start_epoch]

    @property
    def n_steps(self) -> int:
        """Steps of an epoch."""
        return len(self._sampler())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimiser and schedule (called by Lightning)."""
        optimizer = build_optimizer(self.model, self.config.optimizer)
        return {"optimizer": optimizer, "lr_scheduler": build_scheduler(optimizer, self.config, self.n_steps)}

    def lr_scheduler_step(
        self, scheduler: LRScheduler | ReduceLROnPlateau, metric: float | Tensor | None
    ) -> None:
        """Step a schedule, but not a plateau: Lightning would do it after the epoch's checkpoint is written."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def train_dataloader(self) -> DataLoader:
        """Batches of this process, from where a resumed run stopped within an epoch."""
        loop = self.trainer.fit_loop
        done = _processed(loop.epoch_loop.batch_progress) if loop.restarting else 0
        sampler = self._sampler(epoch=_processed(loop.epoch_progress), start=done)
        augment = Augment(self.config.augment, self.config.trainer.seed)
        return share_loader(self.train_set, sampler, augment if augment.acts else None)

    def _sampler(self, epoch: int = 0, start: int = 0) -> ShareSampler:
        settings = self.config.trainer
        n = len(self.train_set)
        return ShareSampler(n, settings.batch_size, seed=settings.seed, epoch=epoch, start=start)

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch's sums and validation, and begin the second stage."""
        self._sums = torch.zeros(2, dtype=torch.float64)
        self.valid_errors = {}
        second, plateau = self.config.stage_two, self.lr_schedulers()
        if (
            second is not None
            and isinstance(plateau, ReduceLROnPlateau)
            and self.current_epoch == second.start_epoch
        ):
            restart_plateau(plateau, self.config.optimizer, stage_two_lr(self.config.optimizer, second))

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:  # noqa: ARG002 Lightning's signature
        """Loss of one batch: the sum of the processes' parts, each divided by the labels of all of them."""
        prediction = predict(self.model, batch, {t.label for t in self.loss.terms}, training=True)
        sums = self.loss.sums(prediction, batch)
        counts = torch.cat([sums[:, 1].detach(), sums.new_full((1,), batch.n_labelled)])
        everywhere = sum_over_processes(counts)
        loss = self.loss.total(sums[:, 0], everywhere[:-1])
        self._sums = self._sums.to(loss.device) + torch.stack([loss.detach() * everywhere[-1], counts[-1]])
        # the mean over processes that follows is to be their sum; without labels, there are still gradients, of zero
        return loss * world_size() + 0.0 * prediction["energy"].sum()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step and update the moving average."""
        super().optimizer_step(*args, **kwargs)
        if self.validated is self.averaged:
            decay = self.config.optimizer.ema_decay
            update_average(self.averaged.parameters(), self.model.parameters(), decay, self.global_step + 1)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._metrics = self._new_metrics()
        self._valid_sums = torch.zeros(len(self.loss.terms), 2, dtype=torch.float64)

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:  # noqa: ARG002
        """Loss and errors of the averaged weights on one batch."""
        prediction = predict(self.validated, batch, self.labels, training=False)
        self._valid_sums += self.loss.sums(prediction, batch).detach().double().cpu()
        self._metrics.update(prediction, batch)

    def on_validation_epoch_end(self) -> None:
        """Loss and errors over the whole validation set, of all processes."""
        sums = sum_over_processes(self._valid_sums.to(self.device))
        self._metrics.reduce(self.device)
        self.valid_loss = float(self.loss.total(sums[:, 0], sums[:, 1]))
        self.valid_errors = self._metrics.overall()
        self.valid_errors_by_head = self._metrics.by_group() if self._metrics.by_head else {}

    def _new_metrics(self) -> MetricAccumulator:
        if len(self.model.heads) > 1:
            return MetricAccumulator(self.model.heads, by_head=True)
        return MetricAccumulator(self.config_types)

    def train_loss(self) -> float:
        """Mean loss of the structures seen in this epoch, by all processes (each of which must ask)."""
        total, count = sum_over_processes(self._sums.to(self.device)).tolist()
        return total / max(count, 1.0)

    def on_train_epoch_end(self) -> None:
        """Move the plateau schedule on, and stop a run that diverged.

        Raises:
            ConfigError: If the loss is not finite.
        """
        loss, plateau = self.train_loss(), self.lr_schedulers()
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss became {loss} in epoch {self.current_epoch}: lower optimizer.lr or "
                "optimizer.gradient_clip, or look for outliers in the data"
            )
        if self.valid_errors and isinstance(plateau, ReduceLROnPlateau):
            plateau.step(self.valid_loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what an unfinished epoch has summed up so far (called on every process)."""
        checkpoint["epoch_sums"] = sum_over_processes(self._sums.to(self.device)).tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the sums of an unfinished epoch."""
        sums = torch.tensor(checkpoint["epoch_sums"], dtype=torch.float64)
        self._sums = sums if is_main() else torch.zeros_like(sums)


def training_of(pl_module: LightningModule) -> MagneticTraining:
    """The training that Lightning hands to a callback, which is always ours.

    Args:
        pl_module: What a hook was called with.

    Raises:
        TypeError: If it is another module.
    """
    if not isinstance(pl_module, MagneticTraining):
        raise TypeError(f"the callback is for MagneticTraining, not for {type(pl_module).__name__}")
    return pl_module

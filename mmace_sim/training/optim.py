"""Optimiser, learning-rate schedules and the moving average of the weights."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from mmace_sim.base.extras import extra
from mmace_sim.training.config import OptimizerConfig, StageTwoConfig, TrainConfig

with extra("train", "Training"):
    from lightning.pytorch.utilities.types import LRSchedulerConfigType

MONITOR = "valid_loss"
"""Quantity that decides on the best weights, the plateau and early stopping."""

WARMUP_START = 0.1
"""Part of the learning rate that the first step has."""

STAGE_TWO_LR = 0.1
"""Learning rate of the second stage where none is given, as a part of that of the first."""


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with AMSGrad; weight decay acts on matrices only."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, amsgrad=True, foreach=True)


def build_scheduler(
    optimizer: torch.optim.Optimizer, config: TrainConfig, steps_per_epoch: int
) -> LRSchedulerConfigType:
    """The schedule in the form that Lightning expects.

    Args:
        optimizer: Optimiser to steer.
        config: The run.
        steps_per_epoch: Steps of an epoch.
    """
    settings = config.optimizer
    if settings.schedule == "plateau":
        plateau = ReduceLROnPlateau(
            optimizer,
            factor=settings.plateau_factor,
            patience=settings.plateau_patience,
            min_lr=settings.lr * settings.lr_final,
        )
        return {"scheduler": plateau, "monitor": MONITOR, "interval": "epoch", "strict": False}
    factor = schedule_factor(settings, steps_per_epoch, config.trainer.max_epochs, config.stage_two)
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def schedule_factor(
    config: OptimizerConfig, steps_per_epoch: int, max_epochs: int, stage_two: StageTwoConfig | None = None
) -> Callable[[int], float]:
    """Learning rate of each step as a part of the largest one: a linear rise, then a cosine fall or a constant.

    Args:
        config: Shape of the schedule.
        steps_per_epoch: Steps of an epoch.
        max_epochs: Length of the run.
        stage_two: Second stage, if any; it falls from its own learning rate.
    """
    warmup = config.warmup_epochs * steps_per_epoch
    total = max_epochs * steps_per_epoch
    second = total if stage_two is None else stage_two.start_epoch * steps_per_epoch
    level = 1.0 if stage_two is None else stage_two_lr(config, stage_two) / config.lr

    def fall(step: float, length: float) -> float:
        if config.schedule == "constant":
            return 1.0
        progress = min(1.0, step / max(1.0, length))
        return config.lr_final + (1.0 - config.lr_final) * 0.5 * (1.0 + math.cos(math.pi * progress))

    def factor(step: int) -> float:
        if step >= second and stage_two is not None:
            return level * fall(step - second, total - second)
        if step < warmup:
            return WARMUP_START + (1.0 - WARMUP_START) * step / warmup
        return fall(step - warmup, second - warmup)

    return factor


def stage_two_lr(config: OptimizerConfig, stage_two: StageTwoConfig) -> float:
    """Largest learning rate of the second stage."""
    return config.lr * STAGE_TWO_LR if stage_two.lr is None else stage_two.lr


def restart_plateau(plateau: ReduceLROnPlateau, config: OptimizerConfig, lr: float) -> None:
    """Go on with another learning rate and forget the best loss, which another loss cannot be compared with.

    Args:
        plateau: Schedule to change.
        config: Shape of the schedule.
        lr: Learning rate to go on with.
    """
    plateau.best, plateau.num_bad_epochs = math.inf, 0
    plateau.min_lrs = [lr * config.lr_final] * len(plateau.optimizer.param_groups)
    for group in plateau.optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def update_average(
    averaged: Iterable[torch.Tensor], current: Iterable[torch.Tensor], decay: float, step: int
) -> None:
    """Move averaged weights towards the current ones; early steps count more, so that the start is forgotten.

    Args:
        averaged: Weights to change.
        current: Weights of the optimiser.
        decay: Decay per step, approached as (1 + step) / (10 + step).
        step: Steps taken so far.
    """
    effective = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged), [c.detach() for c in current], 1.0 - effective)

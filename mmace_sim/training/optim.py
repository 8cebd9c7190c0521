"""Optimiser, learning-rate schedules and the moving average of the weights."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from mmace_sim.training.config import OptimizerConfig

MONITOR = "valid_loss"
"""Quantity that decides on the best weights, the plateau and early stopping."""

WARMUP_START = 0.1
"""Part of the learning rate that the first step has."""


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with AMSGrad; weight decay acts on matrices only."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, amsgrad=True, foreach=True)


def build_scheduler(
    optimizer: torch.optim.Optimizer,
    config: OptimizerConfig,
    steps_per_epoch: int,
    max_epochs: int,
    valid_every: int = 1,
) -> dict[str, Any]:
    """The schedule in the form that Lightning expects.

    Args:
        optimizer: Optimiser to steer.
        config: Which schedule.
        steps_per_epoch: Steps of an epoch.
        max_epochs: Length of the run.
        valid_every: Epochs between validations.
    """
    if config.schedule == "plateau":
        plateau = ReduceLROnPlateau(
            optimizer,
            factor=config.plateau_factor,
            patience=config.plateau_patience,
            min_lr=config.lr * config.lr_final,
        )
        return {"scheduler": plateau, "monitor": MONITOR, "interval": "epoch", "frequency": valid_every}
    factor = schedule_factor(config, steps_per_epoch, max_epochs)
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def schedule_factor(config: OptimizerConfig, steps_per_epoch: int, max_epochs: int) -> Callable[[int], float]:
    """Learning rate of each step as a part of the largest one: a linear rise, then a cosine fall or a constant."""
    warmup = config.warmup_epochs * steps_per_epoch
    total = max_epochs * steps_per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return WARMUP_START + (1.0 - WARMUP_START) * step / warmup
        if config.schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
        return config.lr_final + (1.0 - config.lr_final) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor


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

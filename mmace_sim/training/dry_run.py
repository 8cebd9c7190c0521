"""A run without the run: read everything, build the model, take a few steps, and say what the whole would take."""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ase.data import chemical_symbols

from mmace_sim.errors import ConfigError
from mmace_sim.io.frames import LABELS
from mmace_sim.training.config import TrainConfig
from mmace_sim.training.data.dataset import LabelledBatch
from mmace_sim.training.data.sampling import ShareSampler, share_loader
from mmace_sim.training.data.stream_summary import summarize
from mmace_sim.training.loss import build_loss
from mmace_sim.training.module import predict
from mmace_sim.training.optim import build_optimizer
from mmace_sim.training.trainer import Prepared, prepare, training_device

_N_STEPS = 3
"""Steps taken; the first is not timed."""


@dataclass(frozen=True)
class DryRun:
    """What a run would be.

    Attributes:
        sets: Number of structures, of atoms, and of structures with each label, for `train`, `valid` and `test`.
        n_weights: Number of weights that are trained.
        n_neighbors: Mean number of neighbours of an atom.
        atomic_energies: E0 of each element (of each head), in eV.
        scale: Energy scale of the network, in eV.
        loss: Loss of the first batch.
        device: Where it ran.
        memory: Largest memory so far, in MB: of the process, or of its tensors on a GPU.
        steps: Steps of an epoch.
        step_seconds: Duration of a step.
        epoch_seconds: Duration of an epoch with its validation.
        run_seconds: Duration of all epochs.
    """

    sets: dict[str, dict[str, int]]
    n_weights: int
    n_neighbors: float
    atomic_energies: dict[str, float]
    scale: float
    loss: float
    device: str
    memory: float
    steps: int
    step_seconds: float
    epoch_seconds: float
    run_seconds: float


def dry_run(config: TrainConfig) -> DryRun:
    """Do everything that comes before the first step, and the first few steps, without writing anything.

    Raises:
        ConfigError: If a setting does not fit the data, or the first loss is not finite.
        DataError: If the data cannot be used.
    """
    run = prepare(config)
    config, device = run.config, training_device(config.trainer.device)
    run.model.to(device)
    loss, step_seconds = _take_steps(run, device)
    steps = len(ShareSampler(len(run.train_set), config.trainer.batch_size))
    epoch_seconds = steps * step_seconds + _validation_seconds(run, device) / config.trainer.valid_every
    return DryRun(
        sets=_sizes(run),
        n_weights=sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        n_neighbors=run.train_set.mean_neighbors,
        atomic_energies=_atomic_energies(run),
        scale=float(run.model.scale),
        loss=loss,
        device=str(device),
        memory=_memory(device),
        steps=steps,
        step_seconds=step_seconds,
        epoch_seconds=epoch_seconds,
        run_seconds=config.trainer.max_epochs * epoch_seconds,
    )


def _take_steps(run: Prepared, device: torch.device) -> tuple[float, float]:
    """Loss of the first batch, and mean duration of the steps after it, in s."""
    settings, loss = run.config.trainer, build_loss(run.config.loss)
    labels = {term.label for term in loss.terms}
    optimizer = build_optimizer(run.model, run.config.optimizer)
    sampler = ShareSampler(len(run.train_set), settings.batch_size, seed=settings.seed)

    def step(batch: LabelledBatch) -> float:
        value = loss(predict(run.model, batch, labels, training=True), batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return float(value.detach())

    batches = share_loader(run.train_set, sampler)
    timed = [_timed(step, batch.to(device)) for batch, _ in zip(batches, range(_N_STEPS), strict=False)]
    first = timed[0][0]
    if not math.isfinite(first):
        raise ConfigError(
            f"the loss of the first batch is {first}: look for outliers with `mmace-sim data check`"
        )
    later = timed[1:] or timed
    return first, sum(seconds for _, seconds in later) / len(later)


def _validation_seconds(run: Prepared, device: torch.device) -> float:
    """Duration of a validation, from its first batch, in s."""
    if not len(run.valid_set):
        return 0.0
    sampler = ShareSampler(len(run.valid_set), run.config.trainer.valid_batch_size)
    batch = next(iter(share_loader(run.valid_set, sampler))).to(device)
    _, seconds = _timed(lambda some: predict(run.model, some, set(LABELS), training=False), batch)
    return seconds * len(run.valid_set) / batch.graph.n_systems


def _timed(work: Callable[[LabelledBatch], Any], batch: LabelledBatch) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work(batch)
    if batch.energy.is_cuda:
        torch.cuda.synchronize()
    return result, time.perf_counter() - started


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _sizes(run: Prepared) -> dict[str, dict[str, int]]:
    sizes = {}
    for name in ("train", "valid", "test"):
        summary = summarize(getattr(run.split, name))
        sizes[name] = {"structures": len(summary), "atoms": int(summary.n_atoms.sum())}
        sizes[name] |= {label: int(summary.has(label).sum()) for label in LABELS}
    return sizes


def _atomic_energies(run: Prepared) -> dict[str, float]:
    symbols = [chemical_symbols[z] for z in run.model.elements]
    heads = list(run.model.heads)
    names = symbols if len(heads) == 1 else [f"{head}/{s}" for head in heads for s in symbols]
    return dict(zip(names, run.model.reference.atomic_energies.tolist(), strict=True))

"""A training run from its configuration to the model file."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

from mmace_sim import __version__
from mmace_sim.base.extras import extra
from mmace_sim.base.signals import Interrupted
from mmace_sim.base.text import json_text
from mmace_sim.errors import ConfigError
from mmace_sim.files import write_text
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.checkpoint import save_model
from mmace_sim.model.data_range import DATA_RANGE_KEY
from mmace_sim.model.heads import with_heads
from mmace_sim.training.calibration.files import calibrate_trained
from mmace_sim.training.callbacks import EpochLog, StepProgress, StepReport
from mmace_sim.training.checkpoints import (
    BEST_FILE,
    LAST_FILE,
    Checkpoints,
    GracefulStop,
    TrainingStopped,
    check_fits,
    load_best,
    read_checkpoint,
)
from mmace_sim.training.config import TrainConfig, save_config
from mmace_sim.training.data.dataset import GraphDataset
from mmace_sim.training.data.limits import data_ranges, repulsion_onsets, set_outer_limits
from mmace_sim.training.data.sampling import ShareSampler, share_loader
from mmace_sim.training.data.split import DataSplit, describe_split, read_split
from mmace_sim.training.data.stream import StoredFrames
from mmace_sim.training.data.stream_summary import sample, select, summarize
from mmace_sim.training.distributed import is_main, processes_per_machine, world_size
from mmace_sim.training.evaluation.evaluate import Evaluation, evaluate_frames
from mmace_sim.training.evaluation.metrics import error_line
from mmace_sim.training.finetuning.lora import choose_trained, merge_adapters
from mmace_sim.training.loggers import build_loggers, require_loggers
from mmace_sim.training.metadata import model_metadata
from mmace_sim.training.module import MagneticTraining
from mmace_sim.training.one_body_plot import save_one_body_figures
from mmace_sim.training.setup import (
    build_model,
    check_names,
    complete_model_config,
    cutoff_of,
    resolved_model_section,
    start_config,
)

with extra("train", "Training"):
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.strategies import DDPStrategy

logger = logging.getLogger(__name__)

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.csv"
SUMMARY_FILE = "summary.json"
CHECKPOINTS = "checkpoints"

TRAIN_SAMPLE: int = 10_000
"""Training structures that the final errors are those of, where structures stay on the disk."""

N_EXAMPLES: int = 10
"""Training structures that the model is tried on at the end."""

OnEpoch = Callable[[dict[str, float]], None]
OnStep = Callable[[StepReport], None]


@dataclass
class TrainResult:
    """What came out of a run.

    Attributes:
        model: The best model, on the CPU in float64.
        path: Its file.
        errors: Errors on `train`, `valid` and `test`, as far as there are such structures; with several heads, on
            `train/HEAD`, ... of each.
        n_epochs: Epochs trained.
        best_epoch: Epoch whose averaged weights were kept.
        is_best: Whether validations chose it; else it is the last one.
        seconds: Duration of the training proper.
        examples: Some training structures of each head, with their moments.
    """

    model: MagneticModel
    path: Path
    errors: dict[str, Evaluation]
    n_epochs: int
    best_epoch: int
    is_best: bool
    seconds: float
    examples: dict[str, list[Atoms]]


@dataclass
class Prepared:
    """Everything that a run needs before its first step.

    Attributes:
        config: The run, with nothing left open.
        split: Structures of the three sets.
        train_set: Structures to train on as graphs.
        valid_set: Structures to choose the best weights on as graphs.
        model: The model before its first step.
    """

    config: TrainConfig
    split: DataSplit
    train_set: GraphDataset
    valid_set: GraphDataset
    model: MagneticModel


def prepare(config: TrainConfig, split: DataSplit | None = None) -> Prepared:
    """Read the data and build the model.

    Args:
        config: The run.
        split: Its data, if they were read before.

    Raises:
        ConfigError: If a setting does not fit the data.
        DataError: If the data cannot be used.
    """
    require_loggers(config)
    training_device(config.trainer.device)
    if config.trainer.num_threads is not None:
        torch.set_num_threads(config.trainer.num_threads)
    split = split or read_split(config.data)
    logger.info(describe_split(split))
    check_names(config, split)
    train_set, valid_set = _datasets(config, split)
    onsets = repulsion_onsets([train_set, valid_set])
    model_config = complete_model_config(config, split.train, train_set.mean_neighbors, onsets)
    resolved = config.model_copy(update={"model": resolved_model_section(config, model_config)})
    model = build_model(resolved, model_config, split.train)
    n_weights = sum(p.numel() for p in model.parameters())
    logger.info("model with %d weights, %.1f neighbours per atom", n_weights, train_set.mean_neighbors)
    choose_trained(model, config.optimizer, config.trainer.seed)
    return Prepared(resolved, split, train_set, valid_set, model)


def train(
    config: TrainConfig,
    output: Path,
    *,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    split: DataSplit | None = None,
) -> TrainResult:
    """Train a model and write `model.safetensors`, `metrics.csv`, `config.yaml`, `summary.json` and checkpoints.

    Under ``torchrun`` the processes share every batch, and the first of them writes.

    Args:
        config: The run.
        output: Existing folder to write to.
        resume: Go on from `checkpoints/last.ckpt` of that folder.
        on_epoch: Called with the row of `metrics.csv` after every epoch, for progress displays.
        on_step: Called after every step, for progress displays.
        split: The data of the run, if they were read before.

    Raises:
        ConfigError: If there is nothing to resume from, or the run diverged.
        DataError: If the data cannot be used.
        KeyboardInterrupt: If the run was interrupted; it can be resumed.
    """
    last = output / CHECKPOINTS / LAST_FILE
    if resume and not last.is_file():
        raise ConfigError(f"{last}: no such checkpoint to resume from")
    if resume:
        read_checkpoint(last)
    run = prepare(config, split)
    if is_main():
        save_config(run.config, output / CONFIG_FILE)
        if config.trainer.figures:
            elements = config.loss.magforce_elements
            save_one_body_figures(run.model, run.split.train, output, elements)
    started = time.perf_counter()
    with _quiet_lightning():
        trainer, module = _fit(run, output, last if resume else None, on_epoch, on_step)
    seconds = time.perf_counter() - started
    best_epoch, is_best = load_best(trainer, module, output / CHECKPOINTS / BEST_FILE)
    model = module.validated.cpu().double().eval()
    merge_adapters(model)
    model.renew_constants()
    set_outer_limits(model, run.split.train, start_config(run.config))
    errors = final_errors(model, run.split, run.config)
    model.metadata = model_metadata(run.config, model, errors, best_epoch)
    model.metadata[DATA_RANGE_KEY] = data_ranges(model, run.train_set)
    path = output / MODEL_FILE
    if is_main():
        calibrate_trained(model, run.split.train, run.split.valid, run.config.loss.magforce_elements)
    result = TrainResult(
        model, path, errors, trainer.current_epoch, best_epoch, is_best, seconds, _examples(model, run)
    )
    if is_main():
        save_model(model, path)
        _save_summary(result, run.split, output / SUMMARY_FILE)
    return result


def _examples(model: MagneticModel, run: Prepared) -> dict[str, list[Atoms]]:
    """Some training structures of each head."""
    frames = run.split.train
    examples: dict[str, list[Atoms]] = {}
    heads = summarize(frames).heads
    for head in model.heads:
        own = frames if len(model.heads) == 1 else select(frames, heads == head)
        examples[head] = []
        for frame in sample(
            own, -(-N_EXAMPLES // len(model.heads)), per_element=1, seed=run.config.trainer.seed
        ):
            examples[head].append(frame.atoms.copy())
            set_magmoms(examples[head][-1], frame.magmoms)
    return examples


def final_errors(model: MagneticModel, split: DataSplit, config: TrainConfig) -> dict[str, Evaluation]:
    """Errors on every set that has structures, also logged; with several heads, on the "test/HEAD" of each.

    Args:
        model: The model.
        split: Structures of the three sets.
        config: The run; its `loss.magforce_elements` are those whose magnetic forces count.
    """
    errors = {}
    options: dict[str, Any] = {
        "batch_size": config.trainer.valid_batch_size,
        "magforce_elements": config.loss.magforce_elements,
    }
    several = len(model.heads) > 1
    for head in model.heads:
        single = with_heads(model, {head: head}) if several else model
        for name in ("train", "valid", "test"):
            frames = getattr(split, name)
            frames = select(frames, summarize(frames).heads == head) if several else frames
            if name == "train" and isinstance(frames, StoredFrames):
                frames = sample(frames, TRAIN_SAMPLE)
            if len(frames):
                key = f"{name}/{head}" if several else name
                errors[key] = evaluate_frames(single, frames, **options)
                logger.info("%s MAE: %s", key, error_line(errors[key].overall))
    return errors


def _datasets(config: TrainConfig, split: DataSplit) -> tuple[GraphDataset, GraphDataset]:
    options: dict[str, Any] = {
        "dtype": getattr(torch, config.trainer.dtype),
        "config_types": split.config_types,
        "config_type_weights": config.loss.weights(split.config_types),
        "magforce_elements": config.loss.magforce_elements,
        "heads": {name: head.weight for name, head in config.data.heads.items()} or None,
    }
    r_max = cutoff_of(config)
    return GraphDataset(split.train, r_max, **options), GraphDataset(split.valid, r_max, **options)


def _fit(
    run: Prepared,
    output: Path,
    checkpoint: Path | None,
    on_epoch: OnEpoch | None,
    on_step: OnStep | None,
) -> tuple[Trainer, MagneticTraining]:
    config, settings = run.config, run.config.trainer
    module = MagneticTraining(run.model, config, run.train_set, run.train_set.config_types)
    if checkpoint is not None:
        check_fits(checkpoint, read_checkpoint(checkpoint), module.state_dict())
    valid_loader = None
    if len(run.valid_set):
        sampler = ShareSampler(len(run.valid_set), settings.valid_batch_size)
        valid_loader = share_loader(run.valid_set, sampler)
    keeper = Checkpoints(output / CHECKPOINTS, config)
    callbacks: list[Callback] = [EpochLog(output / METRICS_FILE, on_epoch)]
    callbacks += [StepProgress(on_step)] if on_step is not None else []
    callbacks += [GracefulStop(keeper, config), keeper]
    trainer = Trainer(
        **_hardware(training_device(settings.device)),
        max_epochs=settings.max_epochs,
        check_val_every_n_epoch=settings.valid_every,
        gradient_clip_val=config.optimizer.gradient_clip or None,
        callbacks=callbacks,
        logger=build_loggers(config, output),
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        default_root_dir=output,
    )
    try:
        trainer.fit(module, val_dataloaders=valid_loader, ckpt_path=checkpoint, weights_only=True)
    except TrainingStopped as stop:
        if stop.interrupted:
            raise Interrupted(stop.number) from stop
        logger.info("max_time is over in epoch %d; --resume goes on", trainer.current_epoch)
    except SystemExit as exit_:  # what Lightning makes of Ctrl-C
        signalled = exit_.__context__
        raise signalled if isinstance(signalled, Interrupted) else KeyboardInterrupt() from exit_
    return trainer, module


def _hardware(device: torch.device) -> dict[str, Any]:
    """What Lightning's `Trainer` needs to know of devices and processes."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    if world_size() == 1:
        return {"accelerator": accelerator, "devices": 1 if device.index is None else [device.index]}
    return {
        "accelerator": accelerator,
        "devices": processes_per_machine(),
        "num_nodes": world_size() // processes_per_machine(),
        "strategy": DDPStrategy(broadcast_buffers=False, find_unused_parameters=True),
    }


def training_device(name: str) -> torch.device:
    """The device of a configuration.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, or `auto`: a GPU if there is one.

    Raises:
        ConfigError: If it is another one, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if not name.startswith("cuda"):
        raise ConfigError(f"trainer.device is {name!r}, expected 'auto', 'cpu' or 'cuda'")
    if not torch.cuda.is_available():
        raise ConfigError(f"trainer.device is {name!r}, but torch finds no CUDA device; use 'cpu' or 'auto'")
    return torch.device(name)


def _save_summary(result: TrainResult, split: DataSplit, path: Path) -> None:
    summary = {
        "version": __version__,
        "model": result.path.name,
        "n_epochs": result.n_epochs,
        "best_epoch": result.best_epoch,
        "weights": "best of the validations" if result.is_best else "last",
        "seconds": round(result.seconds, 1),
        "n_weights": sum(p.numel() for p in result.model.parameters()),
        "config_types": _count_types(split),
        "errors": {name: evaluation.as_dict() for name, evaluation in result.errors.items()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(path, json_text(summary, indent=2))


def _count_types(split: DataSplit) -> dict[str, dict[str, int]]:
    return {name: summarize(getattr(split, name)).kinds for name in ("train", "valid", "test")}


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's banners and hints out of our log; its errors still come through."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # hints about worker processes (graphs are in memory), the checkpoint folder (ours, on resume) and
            # internals of Lightning on newer versions of torch
            for module in ("lightning", "torch"):
                warnings.filterwarnings("ignore", module=rf"{module}\..*")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)

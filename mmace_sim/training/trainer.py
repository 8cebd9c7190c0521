"""A training run from its configuration to the model file."""

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from mmace_sim import __version__
from mmace_sim.errors import ConfigError
from mmace_sim.model.architectures import AnyModel
from mmace_sim.model.checkpoint import save_model
from mmace_sim.training.callbacks import EpochLog
from mmace_sim.training.config import TrainConfig, save_config
from mmace_sim.training.dataset import GraphDataset, make_loader
from mmace_sim.training.evaluate import Evaluation, evaluate_frames
from mmace_sim.training.frames import Frame, file_sha256
from mmace_sim.training.metrics import error_line, table_as_dict
from mmace_sim.training.module import MagneticTraining
from mmace_sim.training.optim import MONITOR
from mmace_sim.training.setup import (
    DataSplit,
    build_model,
    complete_model_config,
    cutoff_of,
    describe_split,
    read_split,
    resolved_model_section,
)

logger = logging.getLogger(__name__)

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.csv"
SUMMARY_FILE = "summary.json"
CHECKPOINTS = "checkpoints"

OnEpoch = Callable[[dict[str, float]], None]


@dataclass
class TrainResult:
    """What came out of a run.

    Attributes:
        model: The best model, on the CPU in float64.
        path: Its file.
        errors: Errors on `train`, `valid` and `test`, as far as there are such structures.
        n_epochs: Epochs trained.
        best_epoch: Epoch whose averaged weights were kept.
        seconds: Duration of the training proper.
    """

    model: AnyModel
    path: Path
    errors: dict[str, Evaluation]
    n_epochs: int
    best_epoch: int
    seconds: float


def train(
    config: TrainConfig, output: Path, *, resume: bool = False, on_epoch: OnEpoch | None = None
) -> TrainResult:
    """Train a model and write `model.safetensors`, `metrics.csv`, `config.yaml`, `summary.json` and checkpoints.

    Args:
        config: The run.
        output: Existing folder to write to.
        resume: Go on from `checkpoints/last.ckpt` of that folder.
        on_epoch: Called with the row of `metrics.csv` after every epoch, for progress displays.

    Returns:
        The best model and its errors.

    Raises:
        ConfigError: If there is nothing to resume from, or the run diverged.
        DataError: If the data cannot be used.
    """
    last = output / CHECKPOINTS / "last.ckpt"
    if resume and not last.is_file():
        raise ConfigError(f"{last}: no such checkpoint to resume from")
    if config.trainer.num_threads is not None:
        torch.set_num_threads(config.trainer.num_threads)
    split = read_split(config.data)
    logger.info(describe_split(split))
    train_set, valid_set = _datasets(config, split)
    model_config = complete_model_config(config, split.train, train_set.mean_neighbors)
    resolved = config.model_copy(update={"model": resolved_model_section(config, model_config)})
    save_config(resolved, output / CONFIG_FILE)
    model = build_model(resolved, model_config, split.train)
    n_weights = sum(p.numel() for p in model.parameters())
    logger.info("model with %d weights, %.1f neighbours per atom", n_weights, train_set.mean_neighbors)
    started = time.perf_counter()
    with _quiet_lightning():
        trainer, module = _fit(
            resolved, output, model, train_set, valid_set, last if resume else None, on_epoch
        )
    seconds = time.perf_counter() - started
    best_epoch = _load_best(trainer, module)
    model = module.validated.cpu().double().eval()
    errors = final_errors(model, split, config.trainer.valid_batch_size)
    model.metadata = model_metadata(resolved, model, errors, best_epoch)
    path = save_model(model, output / MODEL_FILE)
    result = TrainResult(model, path, errors, trainer.current_epoch, best_epoch, seconds)
    _save_summary(result, split, output / SUMMARY_FILE)
    return result


def final_errors(model: AnyModel, split: DataSplit, batch_size: int) -> dict[str, Evaluation]:
    """Errors on every set that has structures, also logged."""
    errors = {}
    for name in ("train", "valid", "test"):
        frames: list[Frame] = getattr(split, name)
        if frames:
            errors[name] = evaluate_frames(model, frames, batch_size=batch_size)
            logger.info("%s MAE: %s", name, error_line(errors[name].overall))
    return errors


def model_metadata(
    config: TrainConfig, model: AnyModel, errors: dict[str, Evaluation], best_epoch: int
) -> dict[str, Any]:
    """What the model file says about itself: elements, data, errors, licence, citation."""
    data = config.data
    files = [
        {"role": role, "file": path.name, "sha256": file_sha256(path)}
        for role in ("train", "valid", "test")
        for path in getattr(data, f"{role}_file")
    ]
    source = model.metadata  # of the model that training started from, if any
    return _inherited(source) | {
        "name": config.name,
        "description": config.description,
        "elements": [chemical_symbols[z] for z in model.elements],
        "training_data": {
            "files": files,
            "n_structures": {name: result.n_structures for name, result in errors.items()},
        },
        "errors": {name: table_as_dict(result.overall) for name, result in errors.items()},
        "best_epoch": best_epoch,
        "training_config": config.model_dump(mode="json", exclude={"model": True, "data": _PATHS}),
        "license": data.licence,
        "citation": data.citation,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _inherited(source: dict[str, Any]) -> dict[str, Any]:
    if not source:
        return {}
    told = ("name", "license", "citation", "upstream", "started_from")
    inherited = {"started_from": {key: source[key] for key in told if key in source}}
    # what an architecture violates, training does not change
    return inherited | ({"violations": source["violations"]} if source.get("violations") else {})


_PATHS = {"train_file": True, "valid_file": True, "test_file": True}


def _datasets(config: TrainConfig, split: DataSplit) -> tuple[GraphDataset, GraphDataset]:
    options: dict[str, Any] = {
        "dtype": getattr(torch, config.trainer.dtype),
        "config_types": sorted({f.config_type for f in split.train + split.valid}),
        "config_type_weights": config.loss.config_type_weights,
        "magforce_elements": config.loss.magforce_elements,
    }
    r_max = cutoff_of(config)
    return GraphDataset(split.train, r_max, **options), GraphDataset(split.valid, r_max, **options)


def _fit(
    config: TrainConfig,
    output: Path,
    model: AnyModel,
    train_set: GraphDataset,
    valid_set: GraphDataset,
    checkpoint: Path | None,
    on_epoch: OnEpoch | None,
) -> tuple[Trainer, MagneticTraining]:
    settings = config.trainer
    train_loader = make_loader(train_set, settings.batch_size, shuffle_seed=settings.seed)
    valid_loader = make_loader(valid_set, settings.valid_batch_size) if len(valid_set) else None
    module = MagneticTraining(model, config, train_set.config_types, len(train_loader))
    trainer = Trainer(
        accelerator=_accelerator(settings.device),
        devices=1,
        max_epochs=settings.max_epochs,
        max_time=None if settings.max_time is None else timedelta(hours=settings.max_time),
        check_val_every_n_epoch=settings.valid_every,
        gradient_clip_val=config.optimizer.gradient_clip or None,
        callbacks=_callbacks(config, output, on_epoch, has_valid=valid_loader is not None),
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        default_root_dir=output,
    )
    trainer.fit(module, train_loader, valid_loader, ckpt_path=checkpoint, weights_only=True)
    return trainer, module


def _callbacks(
    config: TrainConfig, output: Path, on_epoch: OnEpoch | None, *, has_valid: bool
) -> list[Callback]:
    settings = config.trainer
    callbacks: list[Callback] = [EpochLog(output / METRICS_FILE, on_epoch)]
    if has_valid and settings.early_stopping is not None:
        callbacks.append(
            EarlyStopping(MONITOR, patience=settings.early_stopping, check_on_train_epoch_end=False)
        )
    common: dict[str, Any] = {
        "dirpath": output / CHECKPOINTS,
        "save_top_k": 1,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    if has_valid and settings.keep == "best":
        every = settings.valid_every
        callbacks.append(ModelCheckpoint(filename="best", monitor=MONITOR, every_n_epochs=every, **common))
    # a second one: `save_last` of the first would only save when the validation loss improves
    callbacks.append(ModelCheckpoint(filename="last", every_n_epochs=1, **common))
    return callbacks


def _accelerator(device: str) -> str:
    if device == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return "cpu"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ConfigError(
                f"trainer.device is {device!r}, but torch finds no CUDA device; use 'cpu' or 'auto'"
            )
        return "gpu"
    raise ConfigError(f"trainer.device is {device!r}, expected 'auto', 'cpu' or 'cuda'")


def _load_best(trainer: Trainer, module: MagneticTraining) -> int:
    """Put the best weights into the module; returns their epoch."""
    checkpoint = trainer.checkpoint_callback
    path = getattr(checkpoint, "best_model_path", "")
    if not path or not Path(path).is_file():
        return trainer.current_epoch - 1
    saved = torch.load(path, map_location=module.device, weights_only=True)
    module.load_state_dict(saved["state_dict"])
    return int(saved["epoch"])


def _save_summary(result: TrainResult, split: DataSplit, path: Path) -> None:
    summary = {
        "version": __version__,
        "model": result.path.name,
        "n_epochs": result.n_epochs,
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 1),
        "n_weights": sum(p.numel() for p in result.model.parameters()),
        "config_types": _count_types(split),
        "errors": {name: evaluation.as_dict() for name, evaluation in result.errors.items()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _count_types(split: DataSplit) -> dict[str, dict[str, int]]:
    def count(frames: Sequence[Frame]) -> dict[str, int]:
        names = [f.config_type for f in frames]
        return {name: names.count(name) for name in sorted(set(names))}

    return {"train": count(split.train), "valid": count(split.valid), "test": count(split.test)}


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

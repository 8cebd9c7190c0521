"""Fine-tuning: a trained model on new data, with its zero of energy found anew and without forgetting."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from pydantic import ValidationError

from mmace_sim.base.quantities import DEFAULT_HEAD
from mmace_sim.base.text import json_text
from mmace_sim.errors import ConfigError, DataError
from mmace_sim.files import write_text
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.checkpoint import load_all_heads, load_model, save_model
from mmace_sim.model.heads import with_heads
from mmace_sim.training.config import (
    DataConfig,
    DataSource,
    HeadConfig,
    TrainConfig,
    explain,
    load_section,
    save_config,
)
from mmace_sim.training.data.split import DataSplit, read_split
from mmace_sim.training.data.stream_summary import elements_of, sample, select, split_frames, summarize
from mmace_sim.training.distributed import world_size
from mmace_sim.training.evaluation.evaluate import Evaluation
from mmace_sim.training.evaluation.metrics import table_as_dict
from mmace_sim.training.finetuning.config import REPLAY_HEAD, FinetuneConfig
from mmace_sim.training.finetuning.moment_limits import check_moments
from mmace_sim.training.finetuning.replay import replay_frames, write_frames
from mmace_sim.training.finetuning.zero import has_one_body, refit_one_body, set_zero
from mmace_sim.training.trainer import SUMMARY_FILE, OnEpoch, OnStep, TrainResult, final_errors, train

logger = logging.getLogger(__name__)

FINETUNE_FILE = "finetune.yaml"
START_FILE = "start.safetensors"
REPLAY_FILE = "replay.extxyz"
REPLAY_VALID_FILE = "replay_valid.extxyz"
ZERO_SAMPLE: int = 2000
"""Structures that the zero of energy is fitted to, drawn from larger sets."""

FEW_STEPS: float = 0.3
"""Learning rate times number of steps below which a model has hardly moved (docs/finetune.md)."""

_SHARED = ("name", "description", "loss", "optimizer", "stage_two", "augment", "trainer")


@dataclass
class FinetuneResult:
    """What came out of a fine-tuning.

    Attributes:
        training: The run: the new model and its errors.
        before: Errors of the model before, its zero of energy already moved, on the same validation and test sets.
    """

    training: TrainResult
    before: dict[str, Evaluation]


def load_finetune_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> FinetuneConfig:
    """Read a configuration file, put `overrides` on top and check everything.

    Args:
        path: YAML file, or None to start from the defaults.
        overrides: Nested values that win over the file (the command line's flags).

    Raises:
        ConfigError: If the file is unreadable, a key is unknown, a value impossible, or there are no data.
    """
    config = load_section(FinetuneConfig, path, overrides)
    if not config.data.train_file and not config.data.heads:
        raise ConfigError("no data to fine-tune on: give files behind the model, or data.train_file")
    try:  # what only the training that it comes down to can tell
        training_config(config, Path())
    except ValidationError as error:
        source = "options" if path is None else str(path)
        raise ConfigError(f"{source}: {explain(error, TrainConfig)}") from error
    return config


def finetune(
    config: FinetuneConfig,
    output: Path,
    *,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> FinetuneResult:
    """Fine-tune a model; writes what a training writes, and `finetune.yaml`, `start.safetensors` and the replay.

    The model before the first step (its heads, its zero of energy) and the replay are made first and written to the
    folder; the rest is an ordinary training, whose configuration is `config.yaml`.

    Args:
        config: What to do.
        output: Existing folder to write to.
        resume: Go on from `checkpoints/last.ckpt` of that folder.
        on_epoch: Called with the row of `metrics.csv` after every epoch, for progress displays.
        on_step: Called after every step, for progress displays.

    Raises:
        ConfigError: If a setting does not fit the model, or there is nothing to resume from.
        DataError: If the data cannot be used, such as for elements that the model does not know.
        ModelFileError: If the model cannot be loaded.
    """
    if world_size() > 1:
        raise ConfigError(
            "finetune runs in one process. Start it, interrupt it after the first epoch, and go on with several: "
            f"torchrun --nproc-per-node N -m mmace_sim.cli.app train --resume -o {output}"
        )
    training = training_config(config, output)
    split: DataSplit | None = None
    before: dict[str, Evaluation] = {}
    if config.model is not None and not resume:
        write_start(config, output)
    save_config(config, output / FINETUNE_FILE)
    if config.model is not None:
        split = read_split(training.data)
        _warn_of_few_steps(training, len(split.train))
        before = _errors_before(load_all_heads(output / START_FILE), training, split)
    result = train(training, output, resume=resume, on_epoch=on_epoch, on_step=on_step, split=split)
    _extend_summary(output / SUMMARY_FILE, config, before)
    return FinetuneResult(result, before)


def training_config(config: FinetuneConfig, output: Path) -> TrainConfig:
    """The training that a fine-tuning comes down to.

    Args:
        config: What to do.
        output: Folder of the run.
    """
    data = config.data
    if config.replay is not None:
        heads = dict(data.heads)
        if not heads:
            flat = {key: getattr(data, key) for key in DataSource.model_fields}
            heads[DEFAULT_HEAD] = HeadConfig(**flat)
        heads[REPLAY_HEAD] = HeadConfig(
            train_file=[output / REPLAY_FILE],
            valid_file=[output / REPLAY_VALID_FILE],
            weight=config.replay.weight,
        )
        data = DataConfig(heads=heads, licence=data.licence, citation=data.citation)
    if config.foundation is not None:
        model = {"foundation": config.foundation, **config.magnetic}
    else:
        model = {"start_from": str(output / START_FILE)}
    shared = config.model_dump(include=set(_SHARED))
    return TrainConfig(data=data, model=model, **shared)


def write_start(config: FinetuneConfig, output: Path) -> None:
    """Write the model before the first step, and the replay if there is one.

    Args:
        config: What to do.
        output: Folder of the run.
    """
    assert config.model is not None  # a foundation is built around by the training itself
    base = load_model(config.model)
    new = read_split(config.data)
    _require_known_elements(base, new, config.model)
    check_moments(base, [new.train, new.valid, new.test] if base.moment_limits else [new.train])
    e0 = config.e0 or ("refit" if has_one_body(base, elements_of(new.train)) else "one-body")
    sources, replayed = dict.fromkeys(config.data.sources(), base.heads[0]), {}
    if config.replay is not None:
        frames = replay_frames(config.replay, new.train, base, config.trainer.seed)
        train_frames, valid_frames, _ = split_frames(frames, config.replay.valid_fraction, 0.0)
        if not valid_frames:  # there are few, and chance left them all on one side
            train_frames, valid_frames = train_frames[1:], train_frames[:1]
        replayed = {REPLAY_FILE: train_frames, REPLAY_VALID_FILE: valid_frames}
        sources[REPLAY_HEAD] = base.heads[0]
    start = with_heads(base, sources)
    for head, name in enumerate(config.data.sources()):
        summary = summarize(new.train)
        known = select(new.train, (summary.heads == name) & summary.has("energy"))
        some = sample(known, ZERO_SAMPLE)
        if e0 == "one-body":
            refit_one_body(start, head, base, some, config.loss.magforce_elements)
        else:
            set_zero(start, head, base, some, e0)
    for name, frames in replayed.items():  # all that can be refused was looked at
        write_frames(output / name, frames)
    save_model(start, output / START_FILE, base.metadata)


def _require_known_elements(base: MagneticModel, data: DataSplit, name: str) -> None:
    unknown = set(elements_of(data.train)) - set(base.elements)
    if unknown:
        new = ", ".join(chemical_symbols[z] for z in sorted(unknown))
        known = ", ".join(chemical_symbols[z] for z in base.elements)
        raise DataError(
            f"the data hold {new}, which the model {name} does not know (it knows {known}). A model cannot learn new "
            "elements by fine-tuning: train one from scratch on all the data (`mmace-sim train`), start from a "
            "foundation model that knows the elements (--foundation FILE), or leave these structures out."
        )


def _warn_of_few_steps(training: TrainConfig, n: int) -> None:
    steps, lr = training.trainer.max_epochs * -(-n // training.trainer.batch_size), training.optimizer.lr
    if lr * steps < FEW_STEPS:
        told = (
            "only %d steps at a learning rate of %g hardly move a model: take %d (more epochs) or --lr 0.002"
        )
        logger.warning(told, steps, lr, round(FEW_STEPS / lr))


def _errors_before(start: MagneticModel, training: TrainConfig, split: DataSplit) -> dict[str, Evaluation]:
    """Errors of the model before the first step on the validation and test sets (or else the training sets)."""
    logger.info("errors before fine-tuning:")
    held_out = DataSplit([] if split.valid or split.test else split.train, split.valid, split.test)
    return final_errors(start, held_out, training)


def _extend_summary(path: Path, config: FinetuneConfig, before: dict[str, Evaluation]) -> None:
    """Add what is known of the start to the summary of the training."""
    summary = json.loads(path.read_text(encoding="utf-8"))
    errors = {name: table_as_dict(errors.overall) for name, errors in before.items()}
    started = {"started_from": config.model or config.foundation, "errors_before": errors}
    write_text(path, json_text(summary | started, indent=2))

"""The training of one round."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmace_sim.base.settings import merge
from mmace_sim.data.learn.settings import LearnSettings
from mmace_sim.io.frames import Frame, frame_number, read_frames
from mmace_sim.training.config import TrainConfig, load_train_config
from mmace_sim.training.trainer import CHECKPOINTS, MODEL_FILE, SUMMARY_FILE, train

DEFAULTS: dict[str, dict[str, Any]] = {
    "data": {"valid_fraction": 0.15},
    "trainer": {"batch_size": 4, "keep": "last", "figures": False, "valid_every": 10},
}
"""What differs from the defaults of `mmace-sim train`: there are few structures."""


def train_round(
    settings: LearnSettings, folder: Path, files: Sequence[Path], start: Path | None
) -> tuple[Path, int, float]:
    """Train on everything that is known; a finished training is not repeated, one that was killed goes on.

    Args:
        settings: Of the loop.
        folder: Folder of the training, which exists.
        files: Labelled structures.
        start: Model of the round before.

    Returns:
        The model file, the number of structures, and how long it took in seconds.

    Raises:
        ConfigError: If a setting of the training is wrong.
        DataError: If the structures cannot be used.
    """
    path, summary = folder / MODEL_FILE, folder / SUMMARY_FILE
    frames = read_frames(files).frames
    if not (path.exists() and summary.exists()):
        last = folder / CHECKPOINTS / "last.ckpt"
        train(round_config(settings, files, frames, start), folder, resume=last.is_file())
    return path, len(frames), float(json.loads(summary.read_text())["seconds"])


def round_config(
    settings: LearnSettings, files: Sequence[Path], frames: Sequence[Frame], start: Path | None
) -> TrainConfig:
    """Configuration of a training.

    Args:
        settings: Of the loop.
        files: Labelled structures.
        frames: What is in them.
        start: Model of the round before.
    """
    own = {"data": {"train_file": [str(file) for file in files]}, "trainer": {}}
    sections = merge(merge(DEFAULTS, settings.train), own)
    trainer = sections["trainer"]
    trainer.setdefault("seed", settings.seed)
    data, numbers = sections["data"], [frame_number(frame.atoms) for frame in frames]
    if 0 < data["valid_fraction"] <= min(numbers) and "test_fraction" not in data:
        data["valid_fraction"] = min(
            min(numbers) + 1e-6, 0.99
        )  # by chance none of a few structures fell below it
    per_epoch = max(math.ceil(len(frames) * (1 - data["valid_fraction"]) / trainer["batch_size"]), 1)
    trainer.setdefault("max_epochs", max(settings.steps // per_epoch, 1))
    if settings.warm_start and start is not None:
        sections["warm_start"] = str(start)
    return load_train_config(None, sections)

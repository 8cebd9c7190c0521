"""Where the progress of a run can be watched besides `metrics.csv`."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mmace_sim.base.extras import extra
from mmace_sim.errors import ConfigError
from mmace_sim.files import note
from mmace_sim.training.config import TrainConfig

with extra("train", "Training"):
    from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

_PROJECT = "mmace-sim"


def require_loggers(config: TrainConfig) -> None:
    """Make sure that the packages behind the loggers are there, before anything long begins.

    Raises:
        ConfigError: If one is not installed.
    """
    for name in config.trainer.loggers:
        if find_spec(name) is None:
            raise ConfigError(
                f"trainer.loggers names {name}, which is not installed: pip install 'mmace-sim[{name}]', or leave "
                "it out"
            )


def build_loggers(config: TrainConfig, folder: Path) -> list[Logger]:
    """The loggers that a configuration asks for.

    TensorBoard's files go to `tensorboard/`; `wandb/` holds those of Weights & Biases, where a resumed run appears as
    another one of the same group.

    Args:
        config: The run.
        folder: Folder of the run.
    """
    makers = {
        "tensorboard": lambda: TensorBoardLogger(folder, name="tensorboard", version=""),
        "wandb": lambda: WandbLogger(
            project=_PROJECT, name=config.name, group=folder.resolve().name, save_dir=folder
        ),
    }
    return [makers[name]() for name in dict.fromkeys(config.trainer.loggers)]


def list_logger_files(loggers: Sequence[Logger]) -> None:
    """Put what the loggers of this process wrote on the list of files of the run.

    Args:
        loggers: From `build_loggers`.
    """
    for log in loggers:
        if isinstance(log, TensorBoardLogger):
            folder, mine = Path(log.log_dir), f".{os.getpid()}."
            for path in folder.glob("*") if folder.is_dir() else ():
                if path.name == log.NAME_HPARAMS_FILE or (
                    path.name.startswith("events.out.") and mine in path.name
                ):
                    note(path)
        elif isinstance(log, WandbLogger):
            folder = Path(log.experiment.dir).parent  # made for this run, under a name of its own
            for path in folder.rglob("*"):
                note(path)

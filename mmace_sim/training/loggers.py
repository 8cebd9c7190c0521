"""Where the progress of a run can be watched besides `metrics.csv`."""

from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from mmace_sim.errors import ConfigError
from mmace_sim.training.config import TrainConfig

_PROJECT = "mmace-sim"


def require_loggers(config: TrainConfig) -> None:
    """Make sure that the packages behind the loggers are there, before anything long begins.

    Args:
        config: The run.

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

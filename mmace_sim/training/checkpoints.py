"""What a run keeps of itself: the best weights, the last state, and a way to stop without losing anything."""

import logging
import math
import signal
import threading
import time
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from mmace_sim.base.extras import extra
from mmace_sim.base.signals import handled
from mmace_sim.errors import ModelFileError
from mmace_sim.files import replacing
from mmace_sim.training.config import TrainConfig
from mmace_sim.training.data.dataset import LabelledBatch
from mmace_sim.training.distributed import is_main, max_over_processes
from mmace_sim.training.module import MagneticTraining, training_of

with extra("train", "Training"):
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import Checkpoint
    from lightning.pytorch.utilities.types import STEP_OUTPUT

logger = logging.getLogger(__name__)

BEST_FILE = "best.ckpt"
LAST_FILE = "last.ckpt"

_HOLDS: dict[str, type] = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
    "epoch_sums": list,
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
}
"""What a run needs to go on."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint as numbers and containers, without running anything that it names.

    Args:
        path: `best.ckpt` or `last.ckpt` of a run.

    Raises:
        ModelFileError: If it is truncated, empty, or no checkpoint of a training; with the advice to take `best.ckpt`
            where that is whole.
    """
    problem = ""
    saved: Any = None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        size = path.stat().st_size if path.is_file() else 0
        problem = f"cannot be read ({type(error).__name__}; {size} bytes)"
    if not problem and not isinstance(saved, dict):
        problem = f"holds {type(saved).__name__}, expected the state of a run"
    if not problem:
        lacks = [name for name, kind in _HOLDS.items() if not isinstance(saved.get(name), kind)]
        problem = f"lacks {', '.join(lacks)}" if lacks else ""
    if problem:
        raise ModelFileError(
            f"{path}: {problem}. It was cut short, is empty, or is not of a training of mmace_sim; "
            f"nothing that it names was run.{_advice(path)}"
        )
    return saved


def check_fits(path: Path, saved: dict[str, Any], expected: dict[str, Any]) -> None:
    """Make sure that a checkpoint is of this run.

    Args:
        path: The file, for messages.
        saved: What it holds.
        expected: State of the untrained module.

    Raises:
        ModelFileError: If its weights have other names or shapes.
    """
    shapes = {name: getattr(tensor, "shape", None) for name, tensor in saved["state_dict"].items()}
    wanted = {name: tensor.shape for name, tensor in expected.items()}
    for name in (*wanted, *shapes):
        if shapes.get(name) != wanted.get(name):
            raise ModelFileError(
                f"{path}: is of another run: its weight '{name}' has the shape {_shape(shapes.get(name))}, this run's "
                f"{_shape(wanted.get(name))}.{_advice(path)}"
            )


def load_best(trainer: Trainer, module: MagneticTraining, path: Path) -> tuple[int, bool]:
    """Put the best weights into the module, or leave the last ones if there are no others.

    Args:
        trainer: Its run, ended.
        module: The module.
        path: `best.ckpt`.

    Returns:
        Epoch of the weights, and whether a validation chose it.
    """
    keeper: Any = trainer.checkpoint_callback
    if module.config.trainer.keep == "last" or keeper.best_epoch < 0 or not path.is_file():
        if module.config.trainer.keep == "best":
            logger.warning("no validation chose among the weights: the last ones become the model")
        return max(trainer.global_step - 1, 0) // module.n_steps, False
    try:
        saved = read_checkpoint(path)
        check_fits(path, saved, module.state_dict())
    except ModelFileError as error:
        logger.warning("%s The last weights become the model.", error)
        return max(trainer.global_step - 1, 0) // module.n_steps, False
    module.load_state_dict(saved["state_dict"])
    return int(saved["epoch"]), True


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(tuple(shape))


def _advice(path: Path) -> str:
    """What to do without a checkpoint."""
    best = path.with_name(BEST_FILE)
    if path.name == LAST_FILE and best.is_file():
        try:
            epoch = read_checkpoint(best)["epoch"]
        except ModelFileError:
            return f" {BEST_FILE} beside it cannot be read either: start the run again."
        return f" {BEST_FILE} beside it is whole (epoch {epoch}): `cp {best} {path}`, and --resume goes on from there."
    return " Start the run again." if path.name == LAST_FILE else ""


class Checkpoints(Checkpoint):
    """Writes `best.ckpt` and `last.ckpt` and stops a run that no longer improves.

    Its own state is in `last.ckpt`, so that a resumed run knows what was best and for how long. A second stage has
    another loss: what was best before it does not count, and only it is stopped early.

    Args:
        folder: Where to write.
        config: The run.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.folder = folder
        self.config = config
        self.best_loss, self.best_epoch, self.stale = math.inf, -1, 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best_loss": self.best_loss, "best_epoch": self.best_epoch, "stale": self.stale}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier state."""
        vars(self).update(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Do not go on with a run that stopped early."""
        self._stop_early(trainer, trainer.current_epoch - 1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Forget what was best when the second stage begins."""
        if self.config.stage_two is not None and trainer.current_epoch == self.config.stage_two.start_epoch:
            self.best_loss, self.best_epoch, self.stale = math.inf, -1, 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is worth keeping."""
        module = training_of(pl_module)
        if module.valid_errors:
            self.stale += 1
            if module.valid_loss < self.best_loss:
                self.best_loss, self.best_epoch, self.stale = module.valid_loss, trainer.current_epoch, 0
                if self.config.trainer.keep == "best":
                    self._save(trainer, BEST_FILE)
        self.save_last(trainer)
        self._stop_early(trainer, trainer.current_epoch)

    def save_last(self, trainer: Trainer) -> None:
        """Write the state to resume from; all processes must call it."""
        self._save(trainer, LAST_FILE)

    def _save(self, trainer: Trainer, name: str) -> None:
        """Write all that a run needs to go on; a run that is killed meanwhile keeps the file that it had."""
        if not is_main():  # takes part, and writes nothing
            trainer.save_checkpoint(self.folder / name)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / name) as unfinished:
            trainer.save_checkpoint(unfinished)

    def _stop_early(self, trainer: Trainer, epoch: int) -> None:
        patience, second = self.config.trainer.early_stopping, self.config.stage_two
        final = second is None or epoch >= second.start_epoch
        if patience is not None and final and self.stale >= patience:
            trainer.should_stop = True


class Urgency(IntEnum):
    """What has to happen after a step."""

    NONE = 0
    SAVE = 1
    STOP = 2
    INTERRUPT = 3


class TrainingStopped(Exception):  # noqa: N818 an outcome, not an error
    """The run ended within an epoch, its state in `last.ckpt`.

    Attributes:
        interrupted: Whether someone wanted it to end, rather than its time being over.
        number: The signal that said so.
    """

    def __init__(self, *, interrupted: bool, number: int | None = None) -> None:
        super().__init__("interrupted" if interrupted else "time is over")
        self.interrupted, self.number = interrupted, number or signal.SIGINT


class GracefulStop(Callback):
    """Saves long epochs every now and then, and ends the run after the step in which a signal came or time was over.

    Args:
        checkpoints: Writes the state.
        config: The run.
    """

    def __init__(self, checkpoints: Checkpoints, config: TrainConfig) -> None:
        self.checkpoints = checkpoints
        hours = config.trainer.max_time
        self._deadline = math.inf if hours is None else time.monotonic() + 3600.0 * hours
        self._interval = 60.0 * config.trainer.checkpoint_every
        self._saved = time.monotonic()
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Take over all signals that end a run (Lightning's own handlers are set by now)."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._on_signal) for number in handled()}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between epochs; but for the very first, the state is saved already."""
        self._saved = time.monotonic()
        if trainer.global_step:
            self._stop_if(self._urgency(training_of(pl_module)))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,  # noqa: ARG002
        batch: LabelledBatch,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Save and stop within an epoch."""
        urgency = self._urgency(training_of(pl_module))
        if urgency == Urgency.NONE or trainer.is_last_batch:
            return
        self.checkpoints.save_last(trainer)
        self._saved = time.monotonic()
        self._stop_if(urgency)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Give the signals back."""
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Give the signals back."""
        self._restore_handlers()

    def _urgency(self, module: MagneticTraining) -> Urgency:
        now = time.monotonic()
        mine = Urgency.SAVE if now > self._saved + self._interval else Urgency.NONE
        mine = Urgency.STOP if now > self._deadline else mine
        mine = Urgency.INTERRUPT if self._signal is not None else mine
        return Urgency(max_over_processes(mine, module.device))

    def _stop_if(self, urgency: Urgency) -> None:
        if urgency >= Urgency.STOP:
            raise TrainingStopped(interrupted=urgency == Urgency.INTERRUPT, number=self._signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number
        if is_main():
            name = signal.Signals(number).name
            logger.warning("%s: stopping after this step (once more Ctrl-C: at once)", name)

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

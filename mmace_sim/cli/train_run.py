"""What the commands that train have in common: their folder, their log, their progress bars, and how they end."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mmace_sim.base.signals import exit_code
from mmace_sim.cli.options import Switches
from mmace_sim.engine.progress import Heartbeat, says_what_is_finished
from mmace_sim.errors import DataError, MmaceError, OutputError

if TYPE_CHECKING:
    from mmace_sim.files import Manifest
    from mmace_sim.training.callbacks import StepReport
    from mmace_sim.training.config import DataConfig
    from mmace_sim.training.trainer import OnEpoch, OnStep, TrainResult

LOG_FILE = "log.txt"
BEGUN_FILE = "metrics.csv"
"""Written just before the first step: a folder without it holds no training."""

RESUME_FILE = Path("checkpoints", "last.ckpt")


class Displays(TypedDict, total=False):
    """What `mmace_sim.training.trainer.train` tells of its progress to; empty in all processes but the first."""

    on_epoch: "OnEpoch"
    on_step: "OnStep"


@contextmanager
def open_training(
    command: str,
    folder: Path,
    max_epochs: int,
    switches: Switches,
    inputs: Sequence[Path] = (),
) -> Iterator[Displays]:
    """Prepare the folder of a run, log to it and show its progress; of several processes, the first does.

    Args:
        command: Name of the command, for the hint how to go on with an interrupted run.
        folder: The folder.
        max_epochs: Length of the run.
        switches: What the command was told besides.
        inputs: Files that the run reads, checked before anything is removed.

    Yields:
        `on_epoch` and `on_step` for `mmace_sim.training.trainer.train`.

    Raises:
        OutputError: If the folder is in use, or cannot be written.
        typer.Exit: If the run was interrupted.
    """
    from mmace_sim.engine.folder import log_to, open_folder  # heavy, and not needed for --help
    from mmace_sim.training.distributed import is_main

    if not is_main():
        try:
            yield {}
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(exit_code(interrupt)) from interrupt
        return
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path}: no such file")

    def described() -> str:
        going_on = f"This goes on where it stopped: mmace-sim {command} --resume -o {folder}"
        can_resume = (folder / RESUME_FILE).is_file()
        return f"{progress.text}. {going_on if can_resume else 'There is no checkpoint to go on from yet.'}"

    resume, force, quiet = switches.resume, switches.force, switches.quiet
    opened = open_folder(
        folder, command, resume=resume, force=force, inputs=inputs, resumes_from=str(RESUME_FILE)
    )
    with (
        opened as (manifest, _),
        _nothing_left(manifest, resume=resume),
        log_to(folder / LOG_FILE),
        TrainingProgress(max_epochs, quiet=quiet) as progress,
        Heartbeat(lambda: progress.text, quiet=quiet),
        says_what_is_finished(described),
    ):
        yield {"on_epoch": progress, "on_step": progress.step}


@contextmanager
def _nothing_left(manifest: "Manifest", *, resume: bool) -> Iterator[None]:
    """Remove what a run wrote that was refused, or interrupted, before its first step: the next try finds no run."""
    try:
        yield
    except (MmaceError, KeyboardInterrupt, typer.Exit):
        stepped = (manifest.folder / BEGUN_FILE).is_file()
        if manifest.begun and not (resume or stepped):
            manifest.discard()
        elif resume or (stepped and not manifest.existing):
            manifest.begin()  # what the log says is kept; a run that --force would remove stays
        raise


def require_run(folder: Path) -> None:
    """Refuse to resume where there is nothing to go on with.

    Args:
        folder: Folder of the run.

    Raises:
        OutputError: If there is no checkpoint in it.
    """
    if not (folder / RESUME_FILE).is_file():
        what = f"holds no {RESUME_FILE}" if folder.is_dir() else "there is no such folder"
        raise OutputError(
            f"{folder}: {what}, so there is no run to go on with. Name its folder with --output DIR, or leave out "
            "--resume to start one."
        )


def data_files(data: "DataConfig") -> list[Path]:
    """All files that a configuration names.

    Args:
        data: The configuration.
    """
    kinds = ("train_file", "valid_file", "test_file")
    return [path for source in data.sources().values() for kind in kinds for path in getattr(source, kind)]


def model_files(name: str | None) -> list[Path]:
    """The file of a model, if a file and not a name was given.

    Args:
        name: Name or path of a model, perhaps with ``#HEAD`` behind it.
    """
    path = Path((name or "").rsplit("#", 1)[0])
    return [path] if name and path.is_file() else []


def print_outcome(result: "TrainResult", console: Console) -> None:
    """Say how long a training took and where its model is.

    Args:
        result: What came out of it.
        console: Where to say it.
    """
    chosen = (
        f"best epoch {result.best_epoch}" if result.is_best else f"last weights (epoch {result.best_epoch})"
    )
    text = f"{result.n_epochs} epochs in {result.seconds:.0f} s, {chosen}; model: {result.path}"
    console.print(text, soft_wrap=True, markup=False)  # paths stay in one piece


def print_summary(result: "TrainResult") -> None:
    """Print ``summary.json`` of a training, the verdict on its model among it.

    Args:
        result: What came out of it.
    """
    from mmace_sim.training.trainer import SUMMARY_FILE

    typer.echo(result.path.with_name(SUMMARY_FILE).read_text(encoding="utf-8").rstrip("\n"))


class _Bars(Progress):
    """Progress bars with a line of text below."""

    text = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.text:
            yield Text(self.text)


class TrainingProgress:
    """Two bars: epochs with the validation errors of the last one, and the steps of the present one with their rate.

    Args:
        max_epochs: Length of the run.
        quiet: Show nothing.
        console: Where to show it; default: stderr.
    """

    def __init__(self, max_epochs: int, *, quiet: bool = False, console: Console | None = None) -> None:
        columns = (
            TextColumn("{task.fields[unit]}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        no_terminal = console is None and not Console(stderr=True).is_terminal  # which lines are for
        self._bar = _Bars(*columns, console=console or Console(stderr=True), disable=quiet or no_terminal)
        self._n_epochs, self._n_done, self._step = max_epochs, 0, ""
        self._epochs = self._bar.add_task("reading data", total=max_epochs, unit="epoch")
        self._steps = self._bar.add_task("", total=None, unit="step", visible=False)

    @property
    def text(self) -> str:
        """How far the run is, in words."""
        epochs = f"{self._n_done} of {self._n_epochs} epochs"
        return f"Training: {epochs}{self._step}" if self._n_done or self._step else "Training: reading data"

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def __call__(self, row: dict[str, Any]) -> None:
        """Show what an epoch brought.

        Args:
            row: Its row of `metrics.csv`.
        """
        from mmace_sim.training.evaluation.metrics import SHORT, UNITS

        errors = "  ".join(
            f"{SHORT[label]} {row[f'valid_{label}_mae']:.1f} {unit}"
            for label, unit in UNITS.items()
            if f"valid_{label}_mae" in row
        )
        self._n_done, self._step = row["epoch"] + 1, ""
        self._bar.text = f"validation MAE: {errors}" if errors else ""
        self._bar.update(
            self._epochs, completed=row["epoch"] + 1, description=f"loss {row['train_loss']:.3f}"
        )

    def step(self, report: "StepReport") -> None:
        """Show how far an epoch is.

        Args:
            report: Step and rate.
        """
        if report.step == 1:
            self._bar.reset(self._steps, total=report.n_steps, visible=True)
        rate = f"{report.rate:.3g} structures/s"
        self._step = f", step {report.step} of {report.n_steps} of the next, {rate}"
        self._bar.update(
            self._steps, completed=report.step, total=report.n_steps, description=rate, visible=True
        )

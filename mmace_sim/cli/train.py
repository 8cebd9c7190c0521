"""``mmace-sim train``: a model from labelled structures."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmace_sim.cli import options
from mmace_sim.errors import OutputError

if TYPE_CHECKING:
    from mmace_sim.training.trainer import TrainResult

DATA = "Data"
FIT = "Optimisation"
OWN_FILES: tuple[str, ...] = ("config.yaml", "log.txt", "metrics.csv", "model.safetensors", "summary.json")
"""What a run writes, beside the folder `checkpoints`; what ``--force`` removes."""

Files = list[Path] | None


def train(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Configuration; flags win over it.")
    ] = None,
    train_file: Annotated[
        Files,
        typer.Option(
            help="Structures to train on (extxyz, extxyz.xz); may be repeated.", rich_help_panel=DATA
        ),
    ] = None,
    valid_file: Annotated[
        Files, typer.Option(help="Structures to choose the best weights on.", rich_help_panel=DATA)
    ] = None,
    valid_fraction: Annotated[
        float | None,
        typer.Option(
            help="Part of the training file for validation, chosen by a hash of each structure's identity, if there "
            "is no validation file.",
            show_default="0.1",
            rich_help_panel=DATA,
        ),
    ] = None,
    test_file: Annotated[
        Files, typer.Option(help="Structures to report errors on at the end.", rich_help_panel=DATA)
    ] = None,
    output: options.Output = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.", rich_help_panel=options.RUN)] = None,
    resume: options.Resume = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    max_epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training structures.", show_default="300", rich_help_panel=FIT),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Structures per step.", show_default="8", rich_help_panel=FIT)
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Largest learning rate.", show_default="0.01", rich_help_panel=FIT)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.", show_default="0", rich_help_panel=FIT)] = None,
    device: options.Device = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float32|float64",
            help="Precision.",
            show_default="float32",
            rich_help_panel=options.MACHINE,
        ),
    ] = None,
    threads: options.Threads = None,
) -> None:
    """Train a magnetic model on structures with reference energies, forces, stresses and magnetic forces.

    The files are extended XYZ with moments `REF_magmom` and any of the labels `REF_energy`, `REF_forces`, `REF_stress`
    and `REF_magforces`; a label that a structure does not have is left out of the loss.

    Writes `model.safetensors`, `metrics.csv` (one row per epoch), `config.yaml` (everything that was chosen),
    `summary.json` (errors per config_type), `log.txt` and `checkpoints/` to one folder.
    `mmace-sim train --resume -o DIR` goes on with an interrupted run.
    """  # fmt: skip
    folder = Path(output or "train")
    data = {
        "train_file": _texts(train_file),
        "valid_file": _texts(valid_file),
        "valid_fraction": valid_fraction,
        "test_file": _texts(test_file),
    }
    trainer = {
        "max_epochs": max_epochs,
        "batch_size": batch_size,
        "seed": seed,
        "device": device,
        "dtype": dtype,
        "num_threads": threads,
    }
    flags = {"name": name, "data": data, "optimizer": {"lr": lr}, "trainer": trainer}
    if resume and config is None and (folder / "config.yaml").is_file():
        config = folder / "config.yaml"
    result = _run(config, _given(flags), folder, resume=resume, force=force, quiet=quiet)
    if not quiet:
        _report(result, folder)


def _texts(paths: Files) -> list[str] | None:
    return [str(path) for path in paths] if paths else None


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Only what was given on the command line."""
    nested = {key: _given(value) if isinstance(value, dict) else value for key, value in flags.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}


def _run(
    config: Path | None, flags: dict[str, Any], folder: Path, *, resume: bool, force: bool, quiet: bool
) -> "TrainResult":
    from mmace_sim.cli.options import quiet_imports
    from mmace_sim.cli.run_dir import log_to

    with quiet_imports():
        from mmace_sim.training.config import load_train_config
        from mmace_sim.training.trainer import train as run_training

        settings = load_train_config(config, flags)
    prepare_training_folder(folder, resume=resume, force=force)
    with log_to(folder / "log.txt"):
        if quiet:
            return run_training(settings, folder, resume=resume)
        with _Progress(settings.trainer.max_epochs) as progress:
            return run_training(settings, folder, resume=resume, on_epoch=progress)


def prepare_training_folder(folder: Path, *, resume: bool, force: bool) -> None:
    """Create the folder of a run, or make sure that it may be used.

    Args:
        folder: The folder.
        resume: Go on with the run that is in it.
        force: Remove the files of an earlier run.

    Raises:
        OutputError: If the folder is in use, or cannot be written.
    """
    if resume and force:
        raise OutputError(
            "--resume and --force contradict each other: go on with the earlier run, or overwrite it?"
        )
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file, not a folder. Choose another --output.")
        folder.mkdir(parents=True, exist_ok=True)
        ours = [folder / name for name in OWN_FILES if (folder / name).exists()]
        if force:
            for path in ours:
                path.unlink()
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        elif any(folder.iterdir()) and not resume:
            remedy = "Go on with it (--resume), overwrite it (--force), or choose" if ours else "Choose"
            raise OutputError(f"{folder}: is not empty. {remedy} another folder (--output DIR).")
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}). Choose another --output."
        ) from error


class _Progress:
    """A progress bar over epochs with the validation errors of the last one."""

    def __init__(self, max_epochs: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(TextColumn("epoch"), *columns)
        self._task = self._bar.add_task("starting", total=max_epochs)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def __call__(self, row: dict[str, float]) -> None:
        from mmace_sim.training.metrics import SHORT, UNITS

        errors = "  ".join(
            f"{SHORT[label]} {row[f'valid_{label}_mae']:.1f} {unit}"
            for label, unit in UNITS.items()
            if f"valid_{label}_mae" in row
        )
        text = f"loss {row['train_loss']:.3f}  {errors}"
        self._bar.update(self._task, completed=row["epoch"] + 1, description=text)


def _report(result: "TrainResult", folder: Path) -> None:
    from rich.console import Console

    from mmace_sim.cli.evaluate import error_table

    console = Console()
    sets = {key.split("/")[0] for key in result.errors}
    best = next(name for name in ("test", "valid", "train") if name in sets)
    for shown in (key for key in result.errors if key.split("/")[0] == best):
        table = error_table(result.errors[shown])
        table.title = f"{shown} set, MAE / RMSE"
        console.print(table)
    console.print(
        f"{result.n_epochs} epochs in {result.seconds:.0f} s, best epoch {result.best_epoch}; model: {result.path}"
    )
    head = "#HEAD" if len(result.model.heads) > 1 else ""
    console.print(
        f"Use it: mmace-sim relax STRUCTURES --model {folder / 'model.safetensors'}{head}", highlight=False
    )

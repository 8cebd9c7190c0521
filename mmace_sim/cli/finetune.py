"""``mmace-sim finetune``: a trained model on new data, or a magnetic model from a non-magnetic foundation model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmace_sim.cli import options
from mmace_sim.cli import train_options as opt
from mmace_sim.cli.stability_run import judge, report_and_exit
from mmace_sim.cli.train_run import (
    data_files,
    model_files,
    open_training,
    print_outcome,
    require_run,
)
from mmace_sim.errors import ConfigError

if TYPE_CHECKING:
    from mmace_sim.training.finetune import FinetuneConfig, FinetuneResult

START = "Start"
KEEP = "Against forgetting"
PARTS = "What is trained"


def finetune(
    model_and_data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] DATA...",
            help="Model to fine-tune (a name or a file, `#HEAD` behind it if it has several heads; not with "
            f"`--foundation`), and files to train on: {opt.FORMATS}.",
            show_default=False,
        ),
    ] = None,
    foundation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Build a magnetic model around a non-magnetic MACE of mace-torch, in place of MODEL; `#HEAD` behind "
            "it chooses one of several heads.",
            rich_help_panel=START,
        ),
    ] = None,
    e0: Annotated[
        str | None,
        typer.Option(
            metavar="refit|one-body|keep|VALUES",
            help="Energies of isolated atoms of the new data. **refit**: fitted to what the model leaves of their "
            "energies. **one-body**: the same together with the energy of the moments' lengths. **keep**: the "
            "model's. Or in eV, as in `Fe=-8.1,Al=-3.2`.",
            show_default="refit; one-body if the model has no such energy, as the published one",
            rich_help_panel=START,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE.yaml",
            help="Configuration; flags win over it. The `finetune.yaml` of a run can be used.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    valid_file: opt.ValidFile = None,
    valid_fraction: opt.ValidFraction = None,
    test_file: opt.TestFile = None,
    replay: Annotated[
        opt.Files,
        typer.Option(
            help="Data of the pre-training with labels, on which the model is trained too, as a head of its own.",
            rich_help_panel=KEEP,
        ),
    ] = None,
    replay_structures: Annotated[
        opt.Files,
        typer.Option(
            help="Without these data: structures with moments, which the model itself labels.",
            rich_help_panel=KEEP,
        ),
    ] = None,
    replay_variants: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Or N distorted copies of the new structures, which the model itself labels.",
            rich_help_panel=KEEP,
        ),
    ] = None,
    n_replay: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of structures drawn from the replay files.",
            show_default="all",
            rich_help_panel=KEEP,
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="PARTS",
            help="Parts that stay as they are, such as `embedding,radial,layers.0`; a wrong name lists all.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            metavar="RANK",
            help="Train low-rank adapters of the linear maps in place of all weights; merged into them at the end.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    output: options.Output = None,
    name: opt.Name = None,
    resume: options.Resume = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    max_epochs: Annotated[int | None, opt.max_epochs_option("100")] = None,
    batch_size: opt.BatchSize = None,
    lr: Annotated[float | None, opt.lr_option("0.0005; 0.005 with --foundation")] = None,
    seed: opt.Seed = None,
    device: options.Device = None,
    dtype: opt.Dtype = None,
    threads: options.Threads = None,
    stability_test: opt.StabilityTest = None,
) -> None:
    """Fine-tune a magnetic model to new data, or train a magnetic model from a non-magnetic foundation model.

    All weights are trained at a small learning rate, unless parts are frozen or `--lora` is given. The zero of energy
    of the new data is found by least squares before the first step. With a replay the model keeps its old data beside
    the new: `model.safetensors` then is the new data's model, and `model.safetensors#replay` the old data's.

    Writes what `mmace-sim train` writes, and `finetune.yaml` (everything that was chosen), `start.safetensors` (the
    model before the first step), `replay.extxyz` and `replay_valid.extxyz`. `mmace-sim finetune --resume -o DIR` goes
    on with an interrupted run. The model is tried out at the end as by `mmace-sim train`.
    """  # fmt: skip
    folder = Path(output or "finetune")
    words = list(model_and_data or [])
    model = words.pop(0) if words and foundation is None else None
    flags = {
        "name": name,
        "model": model,
        "foundation": foundation,
        "e0": parse_energies(e0),
        "data": opt.data_flags(words or None, valid_file, valid_fraction, test_file),
        "replay": {
            "file": opt.as_texts(replay),
            "structures": opt.as_texts(replay_structures),
            "n_variants": replay_variants,
            "n": n_replay,
        },
        "optimizer": {"lr": lr, "lora": lora, "freeze": freeze.split(",") if freeze else None},
        "trainer": {
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "seed": seed,
            "device": device,
            "dtype": dtype,
            "num_threads": threads,
            "stability_test": stability_test,
        },
    }
    if resume:
        require_run(folder)
        config = config or folder / "finetune.yaml"
    settings, result = _run(config, opt.given_flags(flags), folder, resume=resume, force=force, quiet=quiet)
    if not quiet:
        _report(settings, result, folder)
    report_and_exit(result.training)


def parse_energies(text: str | None) -> str | dict[str, float] | None:
    """The value of ``--e0``: a word, or the energy of each element.

    Args:
        text: What was given, such as ``refit`` or ``Fe=-8.1,Al=-3.2``.

    Raises:
        ConfigError: If it is neither.
    """
    if text is None or "=" not in text:
        return text
    energies = {}
    for part in text.split(","):
        symbol, _, number = part.partition("=")
        try:
            energies[symbol.strip()] = float(number)
        except ValueError as error:
            raise ConfigError(
                f"--e0 {text}: expected refit, one-body, keep, or values as in Fe=-8.1,Al=-3.2"
            ) from error
    return energies


def _run(
    config: Path | None, flags: dict[str, Any], folder: Path, *, resume: bool, force: bool, quiet: bool
) -> "tuple[FinetuneConfig, FinetuneResult]":
    with options.quiet_imports():
        from mmace_sim.training.finetune import finetune as run_finetuning
        from mmace_sim.training.finetune import load_finetune_config

        settings = load_finetune_config(config, flags)
    with open_training(
        "finetune",
        folder,
        settings.trainer.max_epochs,
        resume=resume,
        force=force,
        quiet=quiet,
        inputs=_inputs(settings),
    ) as displays:
        result = run_finetuning(settings, folder, resume=resume, **displays)
        judge(result.training, settings.trainer)
        return settings, result


def _inputs(settings: "FinetuneConfig") -> list[Path]:
    """Files that the run reads."""
    replayed = [] if settings.replay is None else settings.replay.file + settings.replay.structures
    return [*data_files(settings.data), *model_files(settings.model or settings.foundation), *replayed]


def _report(settings: "FinetuneConfig", result: "FinetuneResult", folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("set", "label", "before", "after", title="Mean absolute errors")
    for name, after in result.training.errors.items():
        before = result.before.get(name)
        for label, error in after.overall.items():
            old = f"{before.overall[label].mae:.1f}" if before and label in before.overall else "–"
            table.add_row(name, label, old, f"{error.mae:.1f} {error.unit}")
    console = Console(markup=False)
    console.print(table)
    run = result.training
    print_outcome(run, console)
    if settings.replay is not None:
        console.print(
            f"The old data's energies: {run.path}#replay", highlight=False, soft_wrap=True, markup=False
        )
    console.print(
        f"Use it: mmace-sim relax STRUCTURES --model {folder / 'model.safetensors'}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )

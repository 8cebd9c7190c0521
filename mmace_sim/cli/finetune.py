"""``mmace-sim finetune``: a trained model on new data, or a magnetic model from a non-magnetic foundation model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmace_sim.base.settings import merge
from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import RUN_SWITCHES, as_command, given
from mmace_sim.cli.train_run import (
    data_files,
    model_files,
    open_training,
    print_outcome,
    print_summary,
    require_run,
)
from mmace_sim.cli.verdict import judge, report_and_exit
from mmace_sim.training.evaluation.settings import FORMATS
from mmace_sim.training.finetuning.config import FinetuneConfig

if TYPE_CHECKING:
    from mmace_sim.training.finetuning.finetune import FinetuneResult

HELP = """Fine-tune a magnetic model to new data, or train a magnetic model from a non-magnetic foundation model.

All weights are trained at a small learning rate, unless parts are frozen or `--lora` is given. The zero of energy
of the new data is found by least squares before the first step. With a replay the model keeps its old data beside
the new: `model.safetensors` then is the new data's model, and `model.safetensors#replay` the old data's.

Writes what `mmace-sim train` writes, and `finetune.yaml` (everything that was chosen), `start.safetensors` (the
model before the first step), `replay.extxyz` and `replay_valid.extxyz`. `mmace-sim finetune --resume -o DIR` goes
on with an interrupted run. The model is tried out at the end as by `mmace-sim train`.
"""

_ModelAndData = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL] DATA...",
        help="Model to fine-tune (a name or a file, `#HEAD` behind it if it has several heads; not with "
        f"`--foundation`), and files to train on: {FORMATS}.",
        show_default=False,
    ),
]
_Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE.yaml",
        help="Configuration; flags win over it. The `finetune.yaml` of a run can be used.",
        rich_help_panel=opt.RUN,
    ),
]
_SWITCHES: dict[str, Any] = {
    "model_and_data": (_ModelAndData, None),
    "config": (_Config, None),
    "output": (opt.Output, None),
} | RUN_SWITCHES
_SETTINGS = [s for s in FinetuneConfig.declared() if s.name != "data.train_file"]


def _run(*, model_and_data: list[str] | None, config: Path | None, output: str | None, **values: Any) -> None:
    folder, switches = Path(output or "finetune"), opt.Switches.among(values)
    flags, words = given(values), list(model_and_data or [])
    if words and "foundation" not in flags:
        flags["model"] = words.pop(0)
    if words:
        flags = merge(flags, {"data": {"train_file": words}})
    if switches.resume:
        require_run(folder)
        config = config or folder / "finetune.yaml"
    settings, result = _finetune(config, flags, folder, switches)
    if switches.as_json:
        print_summary(result.training)
    elif not switches.quiet:
        _report(settings, result, folder)
    report_and_exit(result.training)


finetune = as_command(_run, "finetune", HELP, _SETTINGS, _SWITCHES)


def _finetune(
    config: Path | None, flags: dict[str, Any], folder: Path, switches: opt.Switches
) -> tuple[FinetuneConfig, Any]:
    with opt.quiet_imports():
        from mmace_sim.training.finetuning.finetune import finetune as run_finetuning
        from mmace_sim.training.finetuning.finetune import load_finetune_config

        settings = load_finetune_config(config, flags)
    epochs = settings.trainer.max_epochs
    with open_training("finetune", folder, epochs, switches, _inputs(settings)) as displays:
        result = run_finetuning(settings, folder, resume=switches.resume, **displays)
        judge(result.training, settings.trainer)
        return settings, result


def _inputs(settings: FinetuneConfig) -> list[Path]:
    """Files that the run reads."""
    replayed = [] if settings.replay is None else settings.replay.file + settings.replay.structures
    return [*data_files(settings.data), *model_files(settings.model or settings.foundation), *replayed]


def _report(settings: FinetuneConfig, result: "FinetuneResult", folder: Path) -> None:
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
        opt.tell(f"The old data's energies: {run.path}#replay")
    opt.tell(f"Use it: mmace-sim relax STRUCTURES --model {folder / 'model.safetensors'}")

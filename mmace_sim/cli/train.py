"""``mmace-sim train``: fit a magnetic model to labelled structures."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmace_sim.base.settings import Flag, setting_of
from mmace_sim.base.text import json_text
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
from mmace_sim.model.config import ModelConfig
from mmace_sim.training.config import TrainConfig

if TYPE_CHECKING:
    from mmace_sim.training.trainer import TrainResult

MODEL = "Model"

HELP = """Train a magnetic model on structures with reference energies, forces, stresses and magnetic forces.

Reads extended XYZ with moments `REF_magmom` and any of the labels `REF_energy`, `REF_forces`, `REF_stress` and
`REF_magforces` (other names: `data.keys`), ASE databases (LMDB or SQLite, larger than memory too), DeePMD-kit spin
folders, MLIP `.cfg`, outputs of VASP, ABINIT, Quantum ESPRESSO and ABACUS, and other files of ASE, several formats
beside each other. A label that a structure does not have is left out of the loss.

Writes `model.safetensors`, `metrics.csv` (one row per epoch), `config.yaml` (everything that was chosen),
`summary.json` (errors per config_type), `log.txt` and `checkpoints/` to one folder.
`mmace-sim train --resume -o DIR` goes on with an interrupted run. At the end the model is tried out: if it violates
an identity or falls into a well outside of its data, it says "do not use it" and exits with code 3.
"""

_Preset = Annotated[
    str | None,
    typer.Option(
        metavar="fe|feal|crn|anisotropy|pretraining",
        help="Hyper-parameters of the paper (arXiv 2604.08143); configuration and flags win over them.",
        rich_help_panel=MODEL,
    ),
]
_DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Read everything, take a few steps, say how long the run would take, and write nothing.",
        rich_help_panel=opt.RUN,
    ),
]
_Config = Annotated[
    Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Configuration; flags win over it.")
]
_SWITCHES: dict[str, Any] = {"config": (_Config, None), "output": (opt.Output, None)} | RUN_SWITCHES
_SWITCHES |= {"dry_run": (_DryRun, False), "preset": (_Preset, None)}
_HYPERPARAMETERS = (
    setting_of(ModelConfig, "r_max", Flag(MODEL, unit="Å"), "model.r_max"),
    setting_of(ModelConfig, "hidden_irreps", Flag(MODEL, metavar="IRREPS"), "model.hidden_irreps"),
)


def _run(*, config: Path | None, output: str | None, preset: str | None, **values: Any) -> None:
    folder, switches = Path(output or "train"), opt.Switches.among(values)
    if switches.resume:
        require_run(folder)
        config = config or folder / "config.yaml"
    with opt.quiet_imports():
        from mmace_sim.training.config import load_train_config
        from mmace_sim.training.distributed import is_main
        from mmace_sim.training.trainer import train as run_training

        settings = load_train_config(config, given(values), preset=preset)
        if switches.dry_run:
            return _print_plan(settings, as_json=switches.as_json)
    inputs = data_files(settings.data) + model_files(settings.model.get("start_from"))
    with open_training("train", folder, settings.trainer.max_epochs, switches, inputs) as displays:
        result = run_training(settings, folder, resume=switches.resume, **displays)
        judge(result, settings.trainer)
    if is_main() and switches.as_json:
        print_summary(result)
    elif is_main() and not switches.quiet:
        _report(result, folder)
    return report_and_exit(result)


train = as_command(_run, "train", HELP, [*_HYPERPARAMETERS, *TrainConfig.declared()], _SWITCHES)


def _print_plan(config: TrainConfig, *, as_json: bool) -> None:
    """What the run would be, on stdout."""
    from rich.console import Console
    from rich.table import Table

    from mmace_sim.training.distributed import is_main
    from mmace_sim.training.dry_run import dry_run

    plan = dry_run(config)
    if not is_main():
        return
    if as_json:
        typer.echo(json_text(vars(plan)), nl=False)
        return
    console = Console(markup=False, highlight=False)
    table = Table("set", *next(iter(plan.sets.values())))
    for name, sizes in plan.sets.items():
        table.add_row(name, *map(str, sizes.values()))
    console.print(table)
    energies = ", ".join(f"{name} {energy:.4f}" for name, energy in plan.atomic_energies.items())
    console.print(f"weights to train: {plan.n_weights}; neighbours per atom: {plan.n_neighbors:.1f}")
    console.print(f"reference energies (eV): {energies}; energy scale {plan.scale:.4f} eV")
    console.print(f"loss of the first batch: {plan.loss:.4g}")
    console.print(f"memory on {plan.device}: {plan.memory:.0f} MB")
    console.print(
        f"time: {plan.step_seconds:.3g} s per step, {plan.steps} steps and {plan.epoch_seconds:.3g} s per epoch, about "
        f"{timedelta(seconds=round(plan.run_seconds))} for {config.trainer.max_epochs} epochs"
    )
    console.print("Nothing was written. Leave out --dry-run to train.")


def _report(result: "TrainResult", folder: Path) -> None:
    from rich.console import Console

    from mmace_sim.cli.evaluation_tables import error_table

    console = Console(markup=False)
    sets = {key.split("/")[0] for key in result.errors}
    best = next(name for name in ("test", "valid", "train") if name in sets)
    for shown in (key for key in result.errors if key.split("/")[0] == best):
        table = error_table(result.errors[shown])
        table.title = f"{shown} set, MAE / RMSE"
        console.print(table)
    print_outcome(result, console)
    head = "#HEAD" if len(result.model.heads) > 1 else ""
    opt.tell(f"Use it: mmace-sim relax STRUCTURES --model {folder / 'model.safetensors'}{head}")

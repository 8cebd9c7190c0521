"""``mmace-sim label``: labels for candidates by DFT or a model."""

import typer

from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import DRY_SWITCHES, settings_command
from mmace_sim.data.label.settings import HELP, LabelSettings


def _run(settings: LabelSettings, switches: opt.Switches) -> int:
    if not (settings.candidates or settings.collect):
        raise typer.BadParameter("name at least one file with candidates", param_hint="CANDIDATES")
    with opt.quiet_imports():
        from mmace_sim.cli.label_run import run_label

    return run_label(settings, switches)


label = settings_command(_run, "label", HELP, LabelSettings, DRY_SWITCHES)

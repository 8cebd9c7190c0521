"""``mmace-sim label``: labels for candidates by DFT or a model."""

from typing import Any

import typer

from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import as_command, load_command_settings
from mmace_sim.data.label.settings import HELP, LabelSettings

_SWITCHES: dict[str, Any] = {
    "config": (opt.Config, None),
    "resume": (opt.Resume, False),
    "force": (opt.Force, False),
    "dry_run": (opt.DryRun, False),
    "quiet": (opt.Quiet, False),
    "as_json": (opt.AsJson, False),
}


def _run(**values: Any) -> None:
    switches = {name: values.pop(name) for name in _SWITCHES}
    settings = load_command_settings(LabelSettings, switches.pop("config"), values)
    if not (settings.candidates or settings.collect):
        raise typer.BadParameter("name at least one file with candidates", param_hint="CANDIDATES")
    with opt.quiet_imports():
        from mmace_sim.cli.label_run import run_label

    raise typer.Exit(run_label(settings, **switches))


label = as_command(_run, "label", HELP, LabelSettings, _SWITCHES)

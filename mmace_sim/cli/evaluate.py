"""``mmace-sim evaluate``: errors of a model on labelled structures."""

from typing import Any

import typer

from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import as_command, load_command_settings
from mmace_sim.training.evaluate_settings import HELP, EvaluateSettings

_SWITCHES: dict[str, Any] = {
    "config": (opt.Config, None),
    "resume": (opt.Resume, False),
    "force": (opt.Force, False),
    "quiet": (opt.Quiet, False),
    "as_json": (opt.AsJson, False),
}


def _run(**values: Any) -> None:
    switches = {name: values.pop(name) for name in _SWITCHES}
    settings = load_command_settings(EvaluateSettings, switches.pop("config"), values)
    if not settings.data:
        raise typer.BadParameter(
            "name a model and at least one file with labelled structures", param_hint="MODEL DATA..."
        )
    with opt.quiet_imports():
        from mmace_sim.cli.evaluate_run import run_evaluate

    raise typer.Exit(run_evaluate(settings, **switches))


evaluate = as_command(_run, "evaluate", HELP, EvaluateSettings, _SWITCHES)

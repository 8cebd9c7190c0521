"""``mmace-sim evaluate``: errors of a model on labelled structures."""

import typer

from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import DRY_SWITCHES, settings_command
from mmace_sim.training.evaluation.settings import HELP, EvaluateSettings


def _run(settings: EvaluateSettings, switches: opt.Switches) -> int:
    if not settings.data:
        raise typer.BadParameter(
            "name a model and at least one file with labelled structures", param_hint="MODEL DATA..."
        )
    with opt.quiet_imports():
        from mmace_sim.cli.evaluate_run import run_evaluate

    return run_evaluate(settings, switches)


evaluate = settings_command(_run, "evaluate", HELP, EvaluateSettings, DRY_SWITCHES)

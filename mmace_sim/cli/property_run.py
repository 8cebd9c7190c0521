"""A command that computes a property: run it, print how it ended."""

import typer

from mmace_sim.base.text import json_text
from mmace_sim.cli.options import Switches
from mmace_sim.engine.declaration import Property
from mmace_sim.engine.settings import RunSettings


def run_command(declared: Property, settings: RunSettings, switches: Switches) -> int:
    """Run a property as its command does.

    Args:
        declared: The property.
        settings: Its settings.
        switches: What the command was told besides.

    Returns:
        Exit code.
    """
    from mmace_sim.engine.machine import quiet_imports

    with quiet_imports():
        from mmace_sim.cli.tables import print_outcome
        from mmace_sim.engine.lifecycle import run_property
        from mmace_sim.engine.plan import plan_run
        from mmace_sim.report import write_report

        declared = declared.chosen(settings)
        computation = declared.load()
    if switches.dry_run:
        typer.echo(plan_run(declared, settings))
        return 0
    report = write_report if settings.report else None
    told = {name: getattr(switches, name) for name in ("resume", "force", "quiet")}
    outcome = run_property(declared, settings, report=report, **told)
    if switches.as_json:
        typer.echo(json_text(outcome.summary), nl=False)
    elif not switches.quiet:
        print_outcome(outcome, computation(declared, settings))
    return outcome.code

"""A command that computes a property: run it, print how it ended."""

from typing import Any

import typer

from mmace_sim.base.text import json_text
from mmace_sim.engine.declaration import Property
from mmace_sim.engine.settings import RunSettings


def run_command(
    declared: Property,
    settings: RunSettings,
    *,
    dry_run: bool = False,
    as_json: bool = False,
    quiet: bool = False,
    **switches: Any,
) -> int:
    """Run a property as its command does.

    Args:
        declared: The property.
        settings: Its settings.
        dry_run: Tell what would be done, and do nothing.
        as_json: Print the summary in place of a table.
        quiet: Show nothing but errors.
        **switches: `resume` and `force` of `mmace_sim.engine.lifecycle.run_property`.

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
    if dry_run:
        typer.echo(plan_run(declared, settings))
        return 0
    report = write_report if settings.report else None
    outcome = run_property(declared, settings, quiet=quiet, report=report, **switches)
    if as_json:
        typer.echo(json_text(outcome.summary), nl=False)
    elif not quiet:
        print_outcome(outcome, computation(declared, settings))
    return outcome.code

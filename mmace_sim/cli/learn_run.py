"""What ``mmace-sim learn`` does once its options are known."""

from collections.abc import Callable
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from mmace_sim.base.text import json_text
from mmace_sim.cli.options import Switches
from mmace_sim.cli.tables import console_for, tell_left_out
from mmace_sim.data.learn.run import LearnOutcome, learn
from mmace_sim.data.learn.settings import LearnSettings
from mmace_sim.engine.results import EXIT_INCOMPLETE, EXIT_OK

_COLUMNS: dict[str, Callable[[Any], str]] = {
    "round": lambda r: str(r.index),
    "calculations": lambda r: str(r.n_calculations),
    "failed": lambda r: str(r.n_failed),
    "CPU h": lambda r: f"{r.cpu_hours:.2f}",
    "E\nmeV/atom": lambda r: _number(r.errors.get("energy")),
    "F\nmeV/Å": lambda r: _number(r.errors.get("forces")),
    "magforces\nmeV/μB": lambda r: _number(r.errors.get("magforces")),
    "±F\nmeV/Å": lambda r: _number(1000 * r.uncertainty["forces"] if "forces" in r.uncertainty else None),
    "not inside\n%": lambda r: _number(None if r.outside is None else 100 * r.outside),
}


def run_learn(settings: LearnSettings, switches: Switches) -> int:
    """Learn, and tell how it went.

    Args:
        settings: Everything.
        switches: What the command was told besides.

    Returns:
        Exit code: 0, or 3 if something could not be used.
    """
    console = Console(markup=False, highlight=False, stderr=switches.as_json)
    tell = (lambda _text: None) if switches.quiet else (lambda text: console.print(text, soft_wrap=True))
    outcome = learn(settings, resume=switches.resume, force=switches.force, tell=tell)
    tell_left_out(outcome.problems)
    if switches.as_json:
        typer.echo(json_text(outcome.summary), nl=False)
    elif not switches.quiet:
        _print(outcome)
    return EXIT_OK if outcome.complete else EXIT_INCOMPLETE


def _print(outcome: LearnOutcome) -> None:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title="Mean absolute errors on the test", title_justify="left"
    )
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for record in outcome.rounds:
        table.add_row(*(show(record) for show in _COLUMNS.values()))
    console = console_for(table, highlight=False)
    console.print(table)
    console.print(f"Ended: {outcome.reason}.", soft_wrap=True)
    console.print(
        f"Results: {outcome.folder}/report.html, summary.json, curve.csv, figures/, test/, rounds/",
        soft_wrap=True,
    )
    if outcome.model is not None:
        console.print(f"Use it: mmace-sim relax STRUCTURES --model {outcome.model}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"

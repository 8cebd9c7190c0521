"""``mmace-sim status``: how far a run is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mmace_sim.engine.status import RunStatus

MAX_VOLUMES = 16
"""Volumes under way that are shown."""

MAX_FAILURES = 5
"""Failures that are shown; all are in ``--json``."""


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with all failures.")] = False,
) -> None:
    """Tell how far a run is: results, rate, time left, failures, workers, while it runs or later.

    Example: `mmace-sim status relax/`; again every ten seconds: `watch -n 10 mmace-sim status relax/`.
    """
    from dataclasses import asdict

    from mmace_sim.base.text import json_text
    from mmace_sim.engine.status import run_status

    found = run_status(run)
    if as_json:
        told: dict[str, Any] = asdict(found) | {"seconds_left": found.seconds_left}
        typer.echo(json_text(told), nl=False)
        return
    for line in lines(found):
        typer.echo(line)


def lines(found: "RunStatus") -> list[str]:
    """What is said of a run.

    Args:
        found: How far it is.
    """
    from mmace_sim.base.text import printable, spelled_seconds

    state = (
        "running" if found.running else "finished" if found.written else "not running; go on with --resume"
    )
    of = "" if found.total is None else f" of {found.total}"
    told = [f"{found.folder}: mmace-sim {found.command}, {state}."]
    counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in found.statuses.items())
    told.append(f"{found.done}{of} results" + (f": {counts}." if counts else "."))
    if found.running and found.rate:
        rate = f"{found.rate:.2g} per second" if found.rate >= 1 else f"{60 * found.rate:.2g} per minute"
        left = "" if found.seconds_left is None else f", about {spelled_seconds(found.seconds_left)} left"
        told.append(f"Rate: {rate}{left}.")
    told += [
        f"Worker {w.pid} on {w.host}{'' if w.gpu is None else f', GPU {w.gpu}'}: {w.done} of {w.of} of its piece."
        for w in found.workers
    ]
    told += [
        f"Volume {name}: {done} of {of}." for name, (done, of) in list(found.volumes.items())[:MAX_VOLUMES]
    ]
    if len(found.volumes) > MAX_VOLUMES:
        told.append(f"... and {len(found.volumes) - MAX_VOLUMES} more volumes under way")
    shown = list(found.failures.items())[:MAX_FAILURES]
    told += [f"{name}: {message}" for name, message in shown]
    if len(found.failures) > MAX_FAILURES:
        told.append(f"... and {len(found.failures) - MAX_FAILURES} more (--json tells all)")
    return [printable(line) for line in told]

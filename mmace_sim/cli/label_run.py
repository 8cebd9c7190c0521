"""What ``mmace-sim label`` does once its options are known."""

from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from mmace_sim.base.text import json_text
from mmace_sim.cli.options import Switches, wide_console
from mmace_sim.data.label.engine import k_points
from mmace_sim.data.label.outcome import LabelOutcome
from mmace_sim.data.label.run import label, preview
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.engine.results import EXIT_INCOMPLETE, EXIT_OK

MAX_ROWS = 40
"""Structures that are shown; with more, only those that did not finish."""

_STYLES = {"finished": "green", "failed": "bold red", "missing": "yellow"}


def run_label(settings: LabelSettings, switches: Switches) -> int:
    """Label candidates and print what became of them.

    Args:
        settings: What computes, and how.
        switches: What the command was told besides.

    Returns:
        Exit code: 0, or 3 if a calculation failed, is missing, or the data must not be trained on.

    Raises:
        ConfigError: If there are no candidates, or the engine cannot work as it is set up.
        OutputError: If the folder cannot be used.
    """
    if switches.dry_run:
        return _preview(settings, as_json=switches.as_json)
    outcome = label(settings, resume=switches.resume, force=switches.force, quiet=switches.quiet)
    if switches.as_json:
        typer.echo(json_text(outcome.summary), nl=False)
    elif not switches.quiet:
        _print(outcome)
    incomplete = outcome.failures or (outcome.frames and not outcome.trainable)
    missing = outcome.missing and not settings.write_only
    return EXIT_INCOMPLETE if incomplete or missing else EXIT_OK


def _preview(settings: LabelSettings, *, as_json: bool) -> int:
    calculations, failures = preview(settings)
    rows: list[dict[str, Any]] = [
        {
            "config_id": c.config_id,
            "formula": c.atoms.get_chemical_formula(),
            "mode": str(c.mode),
            "n_held": int(c.held.sum()),
            "k_points": list(k_points(c.atoms, settings.k_length)),
        }
        for c in calculations
    ]
    refused = [{"config_id": f.config_id, "reason": f.reason} for f in failures]
    if as_json:
        typer.echo(json_text({"engine": settings.engine, "structures": rows, "failures": refused}), nl=False)
    else:
        table = Table(
            "structure", "formula", "spins", "held", "k points", title=f"{settings.engine} would compute"
        )
        for row in rows:
            mesh = "x".join(map(str, row["k_points"]))
            table.add_row(Text(row["config_id"]), row["formula"], row["mode"], str(row["n_held"]), mesh)
        console = wide_console(140, highlight=False)
        console.print(table)
        for failure in refused:
            console.print(Text(f"refused {failure['config_id']}: {failure['reason']}"))
    return EXIT_INCOMPLETE if failures else EXIT_OK


def _print(outcome: LabelOutcome) -> None:
    summary, console = outcome.summary, wide_console(140, highlight=False)
    rows = summary["structures"]
    if len(rows) > MAX_ROWS:
        rows = [row for row in rows if row["status"] != "finished"][:MAX_ROWS]
    if rows:
        console.print(_table(rows, summary["engine"]["name"]))
    names = {row["config_id"] for row in rows}
    for failure in outcome.failures:
        if failure.config_id not in names:
            console.print(Text.assemble(("failed ", "bold red"), f"{failure.config_id}: {failure.reason}"))
    for finding in summary["findings"]:
        if finding["severity"] in ("warning", "error"):
            console.print(Text(f"{finding['severity']}: {finding['message']}. {finding['advice']}"))
    if outcome.frames and not outcome.trainable:
        console.print(Text("Do not train on these data before that is put right.", style="bold red"))
    counts = ", ".join(f"{count} {status}" for status, count in summary["counts"].items() if count)
    console.print(f"{counts or 'nothing'}; {outcome.cpu_seconds:.0f} s of CPU; see {outcome.folder}")


def _table(rows: list[dict[str, Any]], engine: str) -> Table:
    table = Table("structure", "formula", "spins", title=f"Labels by {engine}")
    for heading in ("held", "energy\neV/atom", "off target\nμB", "CPU\ns"):
        table.add_column(heading, justify="right")
    table.add_column("status")
    table.add_column("message")
    for row in rows:
        energy, off = row.get("energy"), row.get("moment_error")
        table.add_row(
            Text(row["config_id"]),
            row["formula"],
            row["mode"],
            str(row["n_held"]),
            "–" if energy is None else f"{energy / row['n_atoms']:.5f}",
            "–" if off is None else f"{off:.3f}",
            f"{row.get('cpu_s', 0.0):.0f}",
            Text(row["status"], style=_STYLES.get(row["status"], "")),
            Text("; ".join(filter(None, [row["message"], *row["notes"]]))),
        )
    return table

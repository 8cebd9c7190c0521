"""The table that a run ends with."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmace_sim.base.text import listed, printable
from mmace_sim.engine.computation import Computation
from mmace_sim.engine.declaration import HEAD
from mmace_sim.engine.results import Outcome
from mmace_sim.errors import ModelFileError

_MOMENTS = re.compile(r"([^()]*) \(([A-Z][a-z]? [\d.]+ μB(?:, [A-Z][a-z]? [\d.]+ μB)*)\)")
"""A note that ends with moments of elements."""

MAX_ROWS = 100
"""Longer tables show the first rows; all are in ``summary.csv``."""


def print_outcome(outcome: Outcome, computation: Computation) -> None:
    """Print how a run ended.

    Args:
        outcome: The end of the run.
        computation: What was computed.
    """
    entries, counts = outcome.summary["structures"], outcome.summary.get("statuses")
    if counts is not None:  # of a large run, whose entries are a sample
        _print_end(Console(markup=False), counts, outcome.folder, outcome.written, outcome.n_resumed)
        return
    table = rows_table(outcome.rows[:MAX_ROWS], computation)
    _print_run(table, entries, outcome.folder, outcome.written, n_resumed=outcome.n_resumed)


def console_for(table: Table, **options: Any) -> Console:
    """The console of a table: in a file or a pipe, which take any width, as wide as it needs.

    Args:
        table: The table.
        **options: Of the console.
    """
    console = Console(markup=False, **options)
    if console.is_terminal:
        return console
    wide = console.measure(table, options=console.options.update(max_width=1000)).maximum
    return Console(markup=False, width=max(console.width, wide), **options)


def tell_left_out(problems: Iterable[str]) -> None:
    """Say on stderr what could not be used.

    Args:
        problems: One message for each.
    """
    console = Console(stderr=True)
    for problem in problems:
        console.print(f"left out: {problem}", style="yellow", highlight=False, soft_wrap=True, markup=False)


def rows_table(rows: Sequence[dict[str, Any]], computation: Computation) -> Table:
    """Lines of results as the declared columns show them.

    Args:
        rows: Lines.
        computation: What was computed.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    columns = list(computation.columns(rows))
    if len({row.get("model") for row in rows if row.get("model")}) > 1:
        columns.append(replace(HEAD["model"], heading="model", left=True, wraps=8))
    for column in columns:
        table.add_column(
            column.heading or "",
            justify="left" if column.left else "right",
            no_wrap=column.wraps is None,
            overflow="fold",
            min_width=column.wraps,
        )
    for row in rows:
        cells = [Text(_printable_cell(column.shown(row))) for column in columns]
        table.add_row(*cells, style="" if computation.is_good(row) else "red")
    return table


def _printable_cell(text: str) -> str:
    """Text of a cell, of one or several lines, without what steers a terminal."""
    return re.sub(r"[^\n\u00a0]+", lambda part: printable(part[0]), text)


def _print_run(
    table: Table, entries: list[dict[str, Any]], folder: Path, files: Sequence[str], *, n_resumed: int = 0
) -> None:
    """Print a table of at most `MAX_ROWS` entries, what went wrong, a summary line and where the outputs are."""
    console = console_for(table)
    where = printable(str(folder))
    console.print(table)
    if len(entries) > MAX_ROWS:
        console.print(
            Text(f"... and {len(entries) - MAX_ROWS} more, see {where}/summary.csv"), soft_wrap=True
        )
    models = _by_model(entries)
    for model, names in models.items() if len(models) > 1 else ():
        console.print(Text(printable(f"Model {model}: {listed(names)}")), soft_wrap=True)
    if len(models) > 1:
        console.print(_on_one_zero(entries), soft_wrap=True)
    for message, names in _grouped(entries).items():
        text = f"{listed(names)}: {message}" if names else message
        console.print(Text(printable(text)), soft_wrap=True)
    for note, count in _merged(note for entry in entries for note in entry["notes"]).items():
        text = f"Note: {note}{f' ({count} structures)' if count > 1 else ''}"
        console.print(Text(printable(text)), soft_wrap=True)
    counts = Counter(entry["status"] for entry in entries)
    _print_end(console, counts, folder, ["summary.csv", *files], n_resumed)


def _merged(notes: Iterable[str]) -> dict[str, int]:
    """Notes and how often each is there; those that differ only in the moments of elements that end them are one."""
    counts, moments = Counter[str](), defaultdict[str, dict[str, None]](dict)
    for note in notes:
        found = _MOMENTS.fullmatch(note)
        text = found[1] if found else note
        counts[text] += 1
        moments[text] |= dict.fromkeys(found[2].split(", ") if found else ())
    return {
        f"{text} ({', '.join(moments[text])})" if moments[text] else text: n for text, n in counts.items()
    }


def _print_end(
    console: Console, counts: Mapping[str, int], folder: Path, files: Sequence[str], n_resumed: int
) -> None:
    """How many structures ended how, and where the outputs are."""
    n = sum(counts.values())
    text = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
    resumed = f" ({n_resumed} from the earlier run)" if n_resumed else ""
    console.print(f"\n{n} structure{'s' * (n != 1)}: {text}{resumed}.", highlight=False)
    report = ["report.html"] if (folder / "report.html").is_file() else []
    names = ", ".join((*report, "summary.json", *files, "log.txt"))
    console.print(Text(f"Results: {printable(str(folder))}/{names}"), soft_wrap=True)


def _on_one_zero(entries: list[dict[str, Any]]) -> str:
    """Why energies of a run with several models cannot be compared, and how they could be."""
    from mmace_sim.structures.model_choice import one_model

    said = "Energies of different models are on different zeros and cannot be compared."
    name = None
    with suppress(ModelFileError):  # a broken plugin is told where it matters
        name = one_model(entry["formula"] for entry in entries if entry.get("model"))
    return f"{said} {name} knows all these elements: --model {name}" if name else said


def _by_model(entries: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Names of the structures by the name of their model."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        if entry.get("model"):
            groups.setdefault(entry["model"], []).append(entry["name"])
    return groups


def _grouped(entries: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Names of the structures by message; a message that names its file stands alone."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        message = entry["message"]
        if not message:
            continue
        names = groups.setdefault(message, [])
        if not message.startswith((entry["name"], entry["file"])):
            names.append(entry["name"])
    return groups

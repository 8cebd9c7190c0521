"""The table that a run ends with."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmace_sim.base.text import printable
from mmace_sim.engine.output import GOOD

MAX_ROWS = 100
"""Longer tables show the first rows; all are in ``summary.csv``."""

_WRAPPING = {"file": 12, "order\nbefore → after": 15, "status": 6, "model": 8}
"""Columns that may take several lines on a narrow terminal, with their least width."""

WIDEST: float = 1e9
"""Numbers from this on (and those that are not finite) are nonsense in any of our units."""

_COLUMNS: tuple[tuple[str, str], ...] = (
    ("file", "left"), ("formula", "left"), ("E/atom\neV", "right"), ("ΔE/atom\neV", "right"), ("|m|\nμB", "left"),
    ("total m\nμB", "right"), ("order\nbefore → after", "left"), ("ΔV\n%", "right"), ("steps", "right"),
    ("status", "left"),
)  # fmt: skip


def print_results(entries: list[dict[str, Any]], folder: Path, *, n_resumed: int = 0) -> None:
    """Print how a relaxation ended.

    Args:
        entries: Entries of ``summary.json``.
        folder: The run folder.
        n_resumed: How many structures an earlier run had finished.
    """
    table = results_table(entries[:MAX_ROWS])
    print_run(table, entries, folder, ("relaxed.extxyz",), n_resumed=n_resumed)


def print_run(
    table: Table, entries: list[dict[str, Any]], folder: Path, files: Sequence[str], *, n_resumed: int = 0
) -> None:
    """Print a table of results, what went wrong, a summary line and where the outputs are.

    Args:
        table: The table, of at most `MAX_ROWS` entries.
        entries: Entries of ``summary.json``.
        folder: The run folder.
        files: Names of what is in it beside the summary.
        n_resumed: How many structures an earlier run had finished.
    """
    console = Console(markup=False)
    if not console.is_terminal:  # a file or a pipe takes any width
        wide = console.measure(table, options=console.options.update(max_width=1000)).maximum
        console = Console(markup=False, width=max(console.width, wide))
    where = printable(str(folder))
    console.print(table)
    if len(entries) > MAX_ROWS:
        console.print(
            Text(f"... and {len(entries) - MAX_ROWS} more, see {where}/summary.csv"), soft_wrap=True
        )
    models = _by_model(entries)
    for model, names in models.items() if len(models) > 1 else ():
        console.print(Text(printable(f"Model {model}: {_listed(names)}")), soft_wrap=True)
    if len(models) > 1:
        console.print("Energies of different models are on different zeros and cannot be compared.")
    for message, names in _grouped(entries).items():
        text = f"{_listed(names)}: {message}" if names else message
        console.print(Text(printable(text)), soft_wrap=True)
    notes = Counter(note for entry in entries for note in entry["notes"])
    for note, count in notes.items():
        text = f"Note: {note}{f' ({count} structures)' if count > 1 else ''}"
        console.print(Text(printable(text)), soft_wrap=True)
    counts = Counter(entry["status"] for entry in entries)
    text = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
    resumed = f" ({n_resumed} from the earlier run)" if n_resumed else ""
    console.print(f"\n{len(entries)} structure{'s' * (len(entries) != 1)}: {text}{resumed}.", highlight=False)
    report = ["report.html"] if (folder / "report.html").is_file() else []
    names = ", ".join((*report, "summary.json", "summary.csv", *files, "log.txt"))
    console.print(Text(f"Results: {where}/{names}"), soft_wrap=True)


def results_table(entries: list[dict[str, Any]]) -> Table:
    """One row for each structure.

    Args:
        entries: Entries of ``summary.json``.

    Returns:
        A rich table.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    several = len(_by_model(entries)) > 1
    for heading, side in (*_COLUMNS, ("model", "left")) if several else _COLUMNS:
        wraps = heading in _WRAPPING
        table.add_column(
            heading, justify=side, no_wrap=not wraps, overflow="fold", min_width=_WRAPPING.get(heading)
        )  # type: ignore[arg-type]
    for entry in entries:
        style = "" if entry["status"] in GOOD else "red"
        model = [entry.get("model") or "–"] if several else []
        table.add_row(*[Text(cell) for cell in [*_row(entry), *model]], style=style)
    return table


def _by_model(entries: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Names of the structures by the name of their model."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        if entry.get("model"):
            groups.setdefault(entry["model"], []).append(entry["name"])
    return groups


def _row(entry: dict[str, Any]) -> list[str]:
    species, total = entry.get("magmom_by_species"), entry.get("total_magmom")
    before, after = entry.get("magnetic_order_initial"), entry.get("magnetic_order_final")
    change = entry.get("volume_change")
    return [
        printable(entry["name"]),
        entry.get("formula") or "",
        fixed(entry.get("energy_per_atom"), "{:.4f}"),
        fixed(entry.get("energy_change_per_atom"), "{:+.4f}"),
        " ".join(f"{symbol} {fixed(value, '{:.2f}')}" for symbol, value in species.items())
        if species
        else "–",
        fixed(math.hypot(*total) if total else None, "{:.2f}"),
        f"{before}\u00a0→ {after or '–'}" if before else "–",
        fixed(None if change is None else 100 * change, "{:+.2f}"),
        str(entry.get("steps") or 0),
        entry["status"].replace("_", " "),
    ]


def fixed(value: float | None, form: str) -> str:
    """A number in a format, or a dash; one that no column is wide enough for in powers of ten.

    Args:
        value: The number.
        form: Such as ``"{:.2f}"``.

    Returns:
        Text of a cell.
    """
    if value is None:
        return "–"
    return form.format(value) if abs(value) < WIDEST else f"{value:.2e}"


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


def _listed(names: list[str]) -> str:
    """Names in a sentence, at most five."""
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + rest

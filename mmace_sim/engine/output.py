"""What every run writes: the head of each entry, the summary as JSON and as a table."""

import csv
import io
import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any, SupportsFloat

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.base.text import json_text, printable
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.files import write_text
from mmace_sim.io.collection import FailedStructure, LoadedStructure

_DECISIVE = ("mmace-sim", "torch", "torch-sim-atomistic")
"""Packages that must be the same everywhere."""


def entry_head(
    item: FailedStructure | LoadedStructure, status: str = "failed", message: str | None = None
) -> dict[str, Any]:
    """What every entry of a summary begins with, whatever the command.

    Args:
        item: A structure, or what could not be read.
        status: How it ended.
        message: What is wrong, if `item` does not say it.

    Returns:
        Where the structure came from, its formula, status, message and notes.
    """
    atoms = getattr(item, "atoms", None)
    return {
        "file": item.file,
        "index": item.index,
        "name": item.name,
        "formula": None if atoms is None else formula_of(atoms),
        "n_atoms": None if atoms is None else len(atoms),
        "model": getattr(item, "model", None) or None,
        "status": status,
        "message": getattr(item, "message", "") if message is None else message,
        "notes": list(getattr(item, "notes", ())),
    }


def formula_of(atoms: Atoms) -> str | None:
    """Chemical formula.

    Args:
        atoms: Structure.

    Returns:
        Such as ``Fe2``; None if it holds what is no element.
    """
    try:
        return str(atoms.get_chemical_formula())
    except (IndexError, KeyError, ValueError):  # atomic numbers beyond the table of elements
        return None


def mean_moments(atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"]) -> dict[str, float]:
    """Mean length of the moments of each element.

    Args:
        atoms: Structure.
        magmoms: Its moments, in μB.

    Returns:
        Lengths in μB, by symbol.
    """
    lengths, symbols = np.linalg.norm(magmoms, axis=1), np.array(atoms.get_chemical_symbols())
    return {
        str(symbol): float(lengths[symbols == symbol].mean()) for symbol in dict.fromkeys(symbols.tolist())
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on.

    Returns:
        Versions by name.
    """
    found = {"python": python_version()}
    for package in ("mmace-sim", "torch", "torch-sim-atomistic", "ase", "phonopy", "numpy", "spglib"):
        found[package] = _installed(package)
    return found


@cache
def _installed(package: str) -> str:
    """Version of a package; its metadata is parsed once in a process, though many files tell it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def check_versions(started: Mapping[str, str]) -> None:
    """Make sure that a worker has the packages with which the run was started.

    Args:
        started: From `versions`, there.

    Raises:
        UnsupportedOptionError: If results might differ.
    """
    here = versions()
    other = [
        f"{name} {here[name]} (not {started[name]})" for name in _DECISIVE if here[name] != started[name]
    ]
    if other:
        raise UnsupportedOptionError(
            f"a worker on {socket.gethostname()} has {', '.join(other)} than the command that was started. Give "
            "workers the same environment (worker_init of the executor)."
        )


def write_summary(
    folder: Path,
    summary: dict[str, Any],
    columns: Sequence[str],
    rows: Sequence[dict[str, Any]] | None = None,
    *,
    indent: int | None = 1,
) -> None:
    """Write ``summary.json`` and ``summary.csv``, each complete or not at all.

    Args:
        folder: The run folder.
        summary: Everything about the run.
        columns: Keys of the rows that are columns of the table.
        rows: Lines of the table; by default the entries of ``structures`` in the summary.
        indent: Spaces of each level of the JSON; None: on one line.

    Raises:
        OutputError: If a file cannot be written.
    """
    write_text(folder / "summary.json", json_text(summary, indent=indent))
    write_csv(folder / "summary.csv", columns, summary["structures"] if rows is None else rows)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a table completely or not at all.

    Args:
        path: The file.
        columns: Keys of the rows, in the order of the columns.
        rows: Plain values; a dictionary becomes ``key:value`` pairs, a list its values with blanks between them, None
            an empty cell, and no text can be a formula for a spreadsheet.

    Raises:
        OutputError: If it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(
        [
            _cell(printable(str(row[key])) if key == "file" and row.get(key) else row.get(key))
            for key in columns
        ]
        for row in rows
    )
    write_text(path, text.getvalue())


def finite_or_none(value: SupportsFloat | None, scale: float = 1.0) -> float | None:
    """A number as JSON can hold it.

    Args:
        value: Number or None.
        scale: What it is multiplied by, such as 1000 for meV.

    Returns:
        The number as a float; None if it is NaN, infinite or None.
    """
    return scale * float(value) if value is not None and math.isfinite(value) else None


def _cell(value: object) -> Any:
    """A value as one cell of a CSV table."""
    if isinstance(value, dict):
        return _safe(" ".join(f"{key}:{_short(number)}" for key, number in value.items()))
    if isinstance(value, list | tuple | np.ndarray):
        parts = np.asarray(value, dtype=object).ravel().tolist()
        text = " ".join(_short(part, 6) for part in parts)
        return text if all(isinstance(part, int | float) for part in parts) else _safe(text)
    return _safe(value) if isinstance(value, str | Path) else value


def _safe(value: str | Path) -> str:
    """A text that no spreadsheet runs as a formula; numbers stay as they are."""
    text = "\n".join(map(printable, str(value).split("\n")))
    if not text.startswith(("=", "+", "-", "@")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _short(value: object, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

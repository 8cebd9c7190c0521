"""Moments in VASP's OUTCAR: those of the last table of each ionic step, turned to Cartesian axes.

With spin-orbit coupling VASP prints tables during the electronic steps too, repeats the last one at the end of the run,
and a killed run has tables of a step that never ended. So tables are assigned by where they stand: an ionic step lasts
from its first ``Iteration`` to the next one's, and it counts if its final energy is there.
"""

import re
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from mmace_sim.errors import DataError
from mmace_sim.io.opening import open_text

_END_OF_STEP = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"

_ITERATION = re.compile(r"Iteration\s+(\d+)\(")

_ROW = re.compile(r"\s*\d+\s[-+.\d*\s]+")
"""A line of a table of moments."""

_STARS = re.compile(r"-?\*{3,}")

_HEADING = re.compile(r"\s*magnetization \(([xyz])\)")

_SAXIS = re.compile(r"\bSAXIS\s*=\s*([^#!;\n]+)")


def read_moments(path: Path, n_steps: int) -> list[np.ndarray | None]:
    """Moments of each complete ionic step.

    Args:
        path: OUTCAR, compressed or not.
        n_steps: Number of complete ionic steps.

    Returns:
        For each step the moments in μB, shape (n_atoms, 1) or (n_atoms, 3) in the frame of SAXIS; None without LORBIT.

    Raises:
        DataError: If the file has fewer complete steps, or a table is damaged.
    """
    steps: list[list[list[float]] | None] = []
    tables: list[list[float]] | None = None  # of the step that goes on
    rows: list[float] | None = None
    number, ended = "", False
    with open_text(path) as file:
        for line in file:
            if (iteration := _ITERATION.search(line)) is not None:
                if iteration[1] != number or ended:
                    tables = None
                number, ended = iteration[1], False
            elif _END_OF_STEP in line:
                steps.append(None if ended else tables)  # steps of a learned force field have no iterations
                ended = True
            elif (heading := _HEADING.match(line)) is not None:
                rows = []
                tables = [] if heading[1] == "x" or tables is None else tables
                tables.append(rows)
                if ended and heading[1] == "x":
                    steps[-1] = tables
            elif rows is not None and re.match(rf"\s*{len(rows) + 1}\s", line):
                rows.append(_last_number(line))
            elif rows and line.strip():
                rows = None
    if len(steps) < n_steps:
        raise DataError(
            f"has {n_steps} complete ionic steps, but {path} has {len(steps)}; not of the same run"
        )
    return [None if found is None else _joined(found) for found in steps[:n_steps]]


class WithoutStars:
    """Lines of an OUTCAR with NaN in tables of moments for the numbers that were too wide for their columns.

    Args:
        file: The file.
    """

    def __init__(self, file: TextIOWrapper) -> None:
        self.name = file.name  # ASE looks for constraints beside it
        self._file = file

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        return _STARS.sub(" nan", line) if "***" in line and _ROW.fullmatch(line.rstrip()) else line


def _last_number(line: str) -> float:
    try:
        return float(_STARS.sub(" nan", line).split()[-1])
    except ValueError as error:
        raise DataError(f"a table of moments cannot be read: {line.strip()!r}") from error


def _joined(tables: list[list[float]]) -> np.ndarray | None:
    """The tables of one step side by side; None if they were cut off."""
    if len(tables) not in (1, 3) or len({len(rows) for rows in tables}) != 1 or not tables[0]:
        return None
    return np.array(tables).T


def read_saxis(path: Path) -> np.ndarray:
    """SAXIS of the INCAR that OUTCAR repeats near its beginning; default (0, 0, 1).

    Args:
        path: OUTCAR, compressed or not.

    Raises:
        DataError: If it is there but cannot be read.
    """
    with open_text(path) as file:
        for line in file:
            found = _SAXIS.search(line)
            if found:
                numbers = re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?", found[1])[:3]
                axis = np.array([float(number.lower().replace("d", "e")) for number in numbers])
                if axis.shape != (3,) or not np.linalg.norm(axis) > 0:
                    raise DataError(f"SAXIS cannot be read: {line.strip()!r}")
                return axis
            if "Iteration" in line:
                break
    return np.array([0.0, 0.0, 1.0])

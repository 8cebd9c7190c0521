"""VASP's OUTCAR: cell, positions, forces, stress, free energy and moments of each complete ionic step, in one pass.

With spin-orbit coupling VASP prints tables of moments during the electronic steps too, repeats the last one at the end
of the run, and a killed run has tables of a step that never ended. So tables are assigned by where they stand: an ionic
step lasts from its first ``Iteration`` to the next one's, and it counts if its final energy is there. What a learned
force field predicted (``ML``) was not computed, and is left out.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.units import GPa

from mmace_sim.errors import StructureError
from mmace_sim.io.opening import open_text

_ITERATION = re.compile(r"Iteration\s+(\d+)\(")

_STARS = re.compile(r"-?\*{3,}")

_DECIMAL = re.compile(r"[-+]?\d+\.\d+")

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?")

_N_AFTER_END = 4
"""Lines after the heading of the final energies, of which one has the free energy."""


@dataclass(frozen=True)
class Step:
    """A complete ionic step.

    Attributes:
        cell: Cell vectors as rows, in Å.
        positions: In Å; None where VASP printed none (NWRITE below 2).
        forces: In eV/Å, with NaN for numbers too wide for their columns.
        energy: Free energy TOTEN, in eV.
        stress: In the order xx, yy, zz, yz, xz, xy, in eV/Å³; None if not computed.
        magmoms: In μB, shape (n_atoms, 1) or (n_atoms, 3) in the frame of SAXIS; None without LORBIT.
    """

    cell: np.ndarray
    positions: np.ndarray | None
    forces: np.ndarray | None
    energy: float
    stress: np.ndarray | None
    magmoms: np.ndarray | None


class Outcar:
    """What an OUTCAR says.

    Args:
        path: The file, compressed or not.

    Attributes:
        steps: Complete ionic steps.
        symbols: Element of each atom; empty where the file does not say (VASP before 6.4 prints counts of ten types).
        axes: Rotation from the frame of SAXIS to Cartesian axes, as VASP 4 to 6 print it; None if there is none.
        tags: Tags of the INCAR that VASP 6 repeats, as text.

    Raises:
        StructureError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.steps: list[Step] = []
        self.tags: dict[str, str] = {}
        self.axes: np.ndarray | None = None
        self._names: list[str] = []
        self._counts: list[int] = []
        self._n_atoms = 0
        self._forget()
        self._cell: np.ndarray | None = None
        self._moments: list[list[list[float]] | None] = []
        self._tables: list[list[float]] | None = None  # of the step that goes on
        self._rows: list[float] | None = None
        self._number, self._ended = "", False
        with open_text(path) as file:
            self._read(file)
        self.steps = [
            replace(found, magmoms=None if tables is None else _joined(tables))
            for found, tables in zip(self._found, self._moments, strict=True)
        ]
        self.symbols = self._elements() if self.steps else []

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return self._n_atoms or sum(self._counts)

    def _forget(self) -> None:
        """Begin anew after a step."""
        self._positions: np.ndarray | None = None
        self._forces: np.ndarray | None = None
        self._stress: np.ndarray | None = None

    def _read(self, file: Iterable[str]) -> None:
        self._found: list[Step] = []
        self._lines = iter(file)
        takers: tuple[tuple[str, Callable[[str], None]], ...] = (
            ("Iteration", self._take_iteration),
            ("ML FREE ENERGIE", lambda _: self._forget()),
            ("FREE ENERGIE OF THE ION-ELECTRON SYSTEM", self._take_end),
            ("magnetization (", self._take_heading),
            ("direct lattice vectors", self._take_cell),
            ("TOTAL-FORCE", self._take_positions),
            ("in kB ", self._take_stress),
        )
        for line in self._lines:
            if not self._number:
                self._take_header(line)
            for mark, take in takers:
                if mark in line:
                    take(line)
                    break
            else:
                self._take_row(line)

    def _take_header(self, line: str) -> None:
        if "POTCAR:" in line:
            self._names.append(line.split("POTCAR:")[1])
        elif "ions per type" in line:
            self._counts = self._counts or [int(word) for word in line.split("=")[1].split()]
        elif found := re.search(r"NIONS\s*=\s*(\d+)", line):
            self._n_atoms = self._n_atoms or int(found[1])
        elif "matrix from SAXIS to cartesian" in line:
            next(self._lines, "")
            rows = [_DECIMAL.findall(next(self._lines, "")) for _ in range(3)]
            self.axes = _matrix(rows, "the matrix from SAXIS to Cartesian axes")
        elif found := re.match(r"\s*(SAXIS|I_CONSTRAINED_M)\s*=\s*([^#!;\n]+)", line):
            self.tags.setdefault(found[1], found[2].strip())

    def _take_iteration(self, line: str) -> None:
        iteration = _ITERATION.search(line)
        if iteration is not None:
            if iteration[1] != self._number or self._ended:
                self._tables = None
            self._number, self._ended = iteration[1], False

    def _take_end(self, _line: str) -> None:
        for _ in range(_N_AFTER_END):
            line = next(self._lines, "")
            if "TOTEN" in line and "eV" in line:
                break
        else:
            return  # cut off
        energy = _numbers(line.split("=")[1].split("eV")[0], 1)
        if self._cell is None or not len(energy):
            return
        step = Step(self._cell, self._positions, self._forces, float(energy[0]), self._stress, None)
        self._found.append(step)
        self._moments.append(None if self._ended else self._tables)
        self._ended = True
        self._forget()

    def _take_heading(self, line: str) -> None:
        heading = re.match(r"\s*magnetization \(([xyz])\)", line)
        if heading is None:
            return
        self._rows = []
        self._tables = [] if heading[1] == "x" or self._tables is None else self._tables
        self._tables.append(self._rows)
        if self._ended and heading[1] == "x":
            self._moments[-1] = self._tables

    def _take_row(self, line: str) -> None:
        """A line of a table of moments, if there is one."""
        if self._rows is None:
            return
        if re.match(rf"\s*{len(self._rows) + 1}\s", line):
            values = _numbers(line, 2)
            if len(values) < 2:
                raise StructureError(f"a table of moments cannot be read: {line.strip()!r}")
            self._rows.append(float(values[-1]))
        elif self._rows and line.strip():
            self._rows = None

    def _take_cell(self, _line: str) -> None:
        self._cell = _matrix(
            [_DECIMAL.findall(next(self._lines, ""))[:3] for _ in range(3)], "the lattice vectors"
        )

    def _take_positions(self, _line: str) -> None:
        next(self._lines, "")
        rows = [_numbers(next(self._lines, ""), 6)[:6] for _ in range(self.n_atoms)]
        if not rows or {len(row) for row in rows} != {6}:
            return  # cut off
        self._positions, self._forces = np.hsplit(np.array(rows), 2)

    def _take_stress(self, line: str) -> None:
        values = _numbers(line.split("in kB")[1], 6)
        self._stress = -0.1 * GPa * values[[0, 1, 2, 4, 5, 3]] if values.shape == (6,) else None

    def _elements(self) -> list[str]:
        """Element of each atom. VASP lists all POTCARs first; those beyond the types of the structure are not used."""
        symbols = []
        for name, count in zip(self._names, self._counts, strict=False):
            words = name.split()
            word = words[0 if "1/r" in name else min(1, len(words) - 1)] if words else ""
            symbol = re.match(r"[A-Z][a-z]?", word)
            if symbol is None or symbol[0] not in atomic_numbers:
                raise StructureError(f"POTCAR:{name.rstrip()} names no element.")
            symbols += [symbol[0]] * count
        return symbols if len(symbols) == self.n_atoms else []


def _numbers(text: str, n: int) -> np.ndarray:
    """Numbers in a line, NaN for those too wide for their columns; numbers may touch. Empty if there are other words.

    Args:
        text: The line.
        n: How many there are at least; with fewer words, numbers touch.
    """
    words = _STARS.sub(" nan ", text).split()
    if len(words) < n:
        words = re.findall(r"nan|[-+]?\d+\.?\d*", " ".join(words))
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        return np.zeros(0)


def _matrix(rows: list[list[str]], what: str) -> np.ndarray:
    try:
        return np.array(rows, dtype=float).reshape(3, 3)
    except ValueError as error:
        raise StructureError(f"{what} cannot be read.") from error


def _joined(tables: list[list[float]]) -> np.ndarray | None:
    """The tables of one step side by side; None if they were cut off."""
    if len(tables) not in (1, 3) or len({len(rows) for rows in tables}) != 1 or not tables[0]:
        return None
    return np.array(tables).T


def direction_of(text: str) -> np.ndarray:
    """Three numbers of a tag of INCAR.

    Args:
        text: Its value.

    Raises:
        StructureError: If it is no direction.
    """
    numbers = [float(word.lower().replace("d", "e")) for word in _NUMBER.findall(text)[:3]]
    axis = np.array(numbers)
    if axis.shape != (3,) or not np.linalg.norm(axis) > 0:
        raise StructureError(f"SAXIS cannot be read: {text!r}")
    return axis

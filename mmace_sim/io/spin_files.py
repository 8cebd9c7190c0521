"""Heisenberg models in the files of spin-dynamics codes: what all of them have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mmace_sim.errors import StructureError
from mmace_sim.io.opening import read_text

_COLLINEAR = 1e-3
"""Sine of the largest angle between moments that count as collinear."""
_ASYMMETRIC = 0.05
"""J'_ij and J'_ji may differ by this much, relative to the largest J': they are averaged."""


@dataclass
class SpinFile:
    """E = −Σ_{i<j} J'_ij e_i·e_j over unique pairs of unit vectors, as a file of another code gives it.

    Attributes:
        cell: Vectors of the cell as rows, in Å.
        positions: Of the sites, in Å.
        moments: Of the sites, in μB.
        symbols: Chemical symbols; "X" where the files do not tell.
        first: Site in the first cell of each pair; each pair is there from both ends.
        second: The other site.
        shifts: Its cell.
        exchange: J' of each pair, in eV.
        notes: What of the files is left out.
    """

    cell: Float[np.ndarray, "3 3"]
    positions: Float[np.ndarray, "n_sites 3"]
    moments: Float[np.ndarray, "n_sites 3"]
    symbols: list[str]
    first: Int[np.ndarray, " n_pairs"]
    second: Int[np.ndarray, " n_pairs"]
    shifts: Int[np.ndarray, "n_pairs 3"]
    exchange: Float[np.ndarray, " n_pairs"]
    notes: list[str] = field(default_factory=list)

    def checked(self) -> "SpinFile":
        """The same, both ends of each pair with their mean, without sites that have no moment.

        Raises:
            StructureError: If there is no pair, a number is not finite, the cell has no volume, moments are not
                collinear, or a pair is there from one end only.
        """
        for name in ("cell", "positions", "moments", "exchange"):
            if not np.isfinite(getattr(self, name)).all():
                raise StructureError(f"{name}: a number is not finite.")
        if abs(np.linalg.det(self.cell)) < 1e-6:
            raise StructureError("the vectors of the cell span no volume.")
        self._leave_out_empty_sites()
        self._leave_out_constants()
        if len(self.exchange) == 0:
            raise StructureError("no pair of sites with a moment is coupled.")
        lengths = np.linalg.norm(self.moments, axis=1)
        axis = self.moments[np.argmax(lengths)] / lengths.max()
        if (np.linalg.norm(np.cross(self.moments, axis), axis=1) > _COLLINEAR * lengths).any():
            raise StructureError(
                "the moments are not collinear; an ordering temperature needs a collinear reference order. Give the "
                "directions of such an order."
            )
        self._average_ends()
        return self

    def _leave_out_empty_sites(self) -> None:
        kept = np.linalg.norm(self.moments, axis=1) > 0
        if kept.all():
            return
        self.notes.append(
            f"{int((~kept).sum())} sites have no moment and are left out, with their couplings."
        )
        number = np.cumsum(kept) - 1
        pairs = kept[self.first] & kept[self.second]
        self.positions, self.moments = self.positions[kept], self.moments[kept]
        self.symbols = [s for s, k in zip(self.symbols, kept, strict=True) if k]
        self.first, self.second = number[self.first[pairs]], number[self.second[pairs]]
        self.shifts, self.exchange = self.shifts[pairs], self.exchange[pairs]

    def _leave_out_constants(self) -> None:
        """A site coupled to itself adds a constant."""
        other = (self.first != self.second) | (self.shifts != 0).any(axis=1)
        self.first, self.second = self.first[other], self.second[other]
        self.shifts, self.exchange = self.shifts[other], self.exchange[other]

    def _average_ends(self) -> None:
        ends = np.column_stack([self.first, self.second, self.shifts])
        others = np.column_stack([self.second, self.first, -self.shifts])
        _, number = np.unique(np.concatenate([ends, others]), axis=0, return_inverse=True)
        here, there = np.split(number.ravel(), 2)
        place = np.full(number.max() + 1, -1)
        place[here] = np.arange(len(here))
        back = place[there]
        if (back < 0).any():
            k = int(np.flatnonzero(back < 0)[0])
            raise StructureError(
                f"{int((back < 0).sum())} of {len(ends)} pairs are there from one end only, the first between sites "
                f"{self.first[k] + 1} and {self.second[k] + 1} in cell {self.shifts[k].tolist()}. List each from both."
            )
        difference = np.abs(self.exchange - self.exchange[back]).max()
        if difference > _ASYMMETRIC * np.abs(self.exchange).max():
            raise StructureError(
                f"the two ends of a pair differ by {1000 * difference:.3g} meV: J_ij must be J_ji."
            )
        if difference > 1e-9:
            self.notes.append(
                f"J_ij and J_ji differ by up to {1000 * difference:.2g} meV: their mean is used."
            )
        self.exchange = 0.5 * (self.exchange + self.exchange[back])


def read_lines(path: Path, comments: str = "#!") -> list[str]:
    """Lines of a text that hold something, without comments.

    Args:
        path: The file.
        comments: Characters that a comment begins with.

    Raises:
        StructureError: If there is no such file.
    """
    if not path.is_file():
        raise StructureError(f"{path.name}: no such file in {path.parent}.")
    lines = []
    for line in read_text(path).splitlines():
        for mark in comments:
            line = line.split(mark, 1)[0]
        if line.strip():
            lines.append(line.strip())
    return lines


def numbers(words: list[str], where: str) -> list[float]:
    """Numbers of a line, Fortran's ``1.0D0`` included.

    Args:
        words: The words.
        where: What to call the line in an error.

    Raises:
        StructureError: If one is no number.
    """
    try:
        return [float(word.lower().replace("d", "e")) for word in words]
    except ValueError as error:
        raise StructureError(f"{where}: expected numbers, got {' '.join(words)!r}.") from error


def table(path: Path, n_columns: int) -> Float[np.ndarray, "n_rows n_columns"]:
    """The first columns of a table of numbers.

    Args:
        path: The file.
        n_columns: How many are needed.

    Raises:
        StructureError: If there is no such file, or a row is too short or holds something else.
    """
    rows = []
    for k, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if len(words) < n_columns:
            raise StructureError(
                f"{path.name}, row {k}: {len(words)} columns, expected {n_columns} or more: {line!r}."
            )
        rows.append(numbers(words[:n_columns], f"{path.name}, row {k}"))
    if not rows:
        raise StructureError(f"{path.name}: holds no row.")
    return np.array(rows)


def find_folders(paths: list[str], name: str) -> list[Path]:
    """Folders with a file of that name, at any depth, in alphabetical order; a path to the file itself is its folder.

    Args:
        paths: Folders and files.
        name: Name of the file.

    Returns:
        The folders, those that do not hold the file included if they were named: reading them tells.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_file():
            found[path.parent] = None
        elif (path / name).is_file() or not path.is_dir():
            found[path] = None
        else:
            below = sorted(file.parent for file in path.rglob(name) if file.is_file())
            found.update(dict.fromkeys(below or [path]))
    return list(found)


Reader = Callable[[Path], SpinFile]
"""Reads the folder of one model."""

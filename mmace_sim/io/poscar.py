"""POSCAR and CONTCAR of VASP: cell, positions, selective dynamics and velocities, as VASP itself reads them."""

import re
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.units import fs

from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.io.opening import OPENERS, open_text
from mmace_sim.io.pymatgen_json import set_selective_dynamics

_TRUE = re.compile(r"\.?T(RUE)?\.?", re.IGNORECASE)
_FALSE = re.compile(r"\.?F(ALSE)?\.?", re.IGNORECASE)
_SYMBOL = re.compile(r"([A-Z][a-z]?)(?=[_./]|$)")
_IN_A_COMMENT = re.compile(r"[A-Z][a-z]?")
_IN_OUTPUT = re.compile(r"TITEL\s*=\s*\S+\s+([A-Z][a-z]?)")
_NEEDED = (
    "A POSCAR has a comment, a scale, three cell vectors, symbols, counts, Direct or Cartesian, and positions"
)


def fortran_float(word: str) -> float:
    """A number as Fortran writes it: ``.5D0``, ``1.d-3``, ``-2``.

    Args:
        word: Text without blanks.

    Raises:
        ValueError: If it is none.
    """
    return float(word.replace("D", "e").replace("d", "e"))


class _Lines:
    """Lines of a file with their numbers, for messages."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.at = 0

    def next(self, what: str) -> str:
        """The next line.

        Args:
            what: What it should hold.
        """
        if self.at >= len(self.lines) or (self.at == len(self.lines) - 1 and not self.lines[-1].strip()):
            raise StructureError(f"ends before {what}. {_NEEDED}; this one is cut off. Get it again.")
        self.at += 1
        return self.lines[self.at - 1]

    def numbers(self, what: str) -> tuple[list[float], list[str]]:
        """The three numbers that the next line begins with, and the words after them."""
        line = self.next(what)
        words = line.split("!")[0].replace(",", " ").split()
        try:
            values = [fortran_float(word) for word in words[:3]]
        except ValueError:
            values = []
        if len(values) != 3 or not np.isfinite(values).all():
            raise StructureError(
                f"line {self.at}, {what}: expected three numbers, found {line.strip()[:60]!r}."
            )
        return values, words[3:]


def read_poscar(text: str, path: Path) -> Atoms:
    """Read a POSCAR.

    Args:
        text: Its text.
        path: Where it is; a POSCAR without symbols (VASP 4) takes them from POTCAR or OUTCAR beside it.

    Returns:
        The structure, fixed as selective dynamics says, with velocities if there are any.

    Raises:
        NotAStructureError: If it is something else.
        StructureError: If it is damaged; the message names the line.
    """
    lines = _Lines(text)
    comment = lines.next("the comment")
    scale = _scale(lines)
    cell = np.array([lines.numbers(f"cell vector {axis}")[0] for axis in "abc"])
    volume = abs(np.linalg.det(cell))
    if volume <= 1e-6 * max(np.linalg.norm(cell, axis=1).prod(), 1e-300):
        raise StructureError("the three cell vectors lie in a plane. Correct lines 3 to 5.")
    if scale[0] < 0:
        scale = np.cbrt(-scale / volume)
    symbols = _symbols(lines, comment, path)
    mode = lines.next("Direct or Cartesian")
    selective = mode.strip()[:1].lower() == "s"
    if selective:
        mode = lines.next("Direct or Cartesian")
    if re.match(r"\s*[-+.\d]", mode):
        raise StructureError(
            f"line {lines.at}: expected Direct or Cartesian, found {mode.strip()[:60]!r}. {_NEEDED}."
        )
    positions, movable = _positions(lines, len(symbols), selective=selective)
    cell = cell * scale
    atoms = Atoms(symbols, cell=cell, pbc=True)
    if mode.strip()[:1].lower() in ("c", "k"):
        atoms.positions = positions * scale
    else:
        atoms.positions = positions @ cell
    set_selective_dynamics(atoms, movable)
    velocities = _velocities(lines, len(atoms))
    if velocities is not None:
        atoms.set_velocities(velocities / fs)
    return atoms


def _scale(lines: _Lines) -> np.ndarray:
    """One factor (negative: the volume), or three positive ones."""
    words = lines.next("the scale").split("!")[0].split()[:3]
    values: list[float] = []
    for word in words:
        try:
            values.append(fortran_float(word))
        except ValueError:
            break
    if not values:
        raise NotAStructureError("cannot be read: it is no POSCAR, its second line is no number.")
    values = values if len(values) == 3 else values[:1]
    if 0 in values or not np.isfinite(values).all() or (len(values) == 3 and min(values) < 0):
        raise StructureError(
            f"the scale in line 2 is {' '.join(words)}; expected a positive number, minus the volume of the cell in "
            "Å³, or three positive numbers."
        )
    return np.array(values)


def _symbols(lines: _Lines, comment: str, path: Path) -> list[str]:
    """The element of each atom."""
    words = lines.next("the symbols of the elements").split("!")[0].split()
    names = None
    if words and not _is_count(words[0]):
        names = [_element(word) for word in words]
        words = lines.next("the numbers of atoms").split("!")[0].split()
    counts = []
    for word in words:
        if not _is_count(word):
            break
        counts.append(int(word[:18]))
    if not counts or min(counts) < 0 or sum(counts) == 0:
        raise StructureError(
            f"line {lines.at}: expected how many atoms of each element there are, found {' '.join(words)[:60]!r}."
        )
    if names is None:
        names = _symbols_elsewhere(comment, path, len(counts))
    if len(names) != len(counts):
        raise StructureError(
            f"names {len(names)} elements ({' '.join(names)}), but line {lines.at} has {len(counts)} numbers of atoms "
            f"({' '.join(map(str, counts))}). Give one number for each."
        )
    if sum(counts) > len(lines.lines):
        raise StructureError(
            f"cannot be read: its header announces {sum(counts)} atoms, but the file has {len(lines.lines)} lines. "
            "Get it again."
        )
    return [name for name, count in zip(names, counts, strict=True) for _ in range(count)]


def _is_count(word: str) -> bool:
    return re.fullmatch(r"[-+]?\d+", word) is not None


def _element(word: str) -> str:
    """The element of ``Fe``, ``Fe_pv`` or ``Fe_pv/0a1b2c3d``."""
    found = _SYMBOL.match(word)
    if found is None or atomic_numbers.get(found[1], 0) < 1:
        raise StructureError(f"line 6: {word[:20]!r} is no element. Write the symbols of the elements there.")
    return found[1]


def _symbols_elsewhere(comment: str, path: Path, n: int) -> list[str]:
    """The elements of a POSCAR of VASP 4: those of its comment, else of the POTCAR or OUTCAR beside it."""
    plain = re.sub(r"[-_,.=\d^()]", " ", comment).split()
    found = [symbol for word in plain for symbol in _formula(word)]
    if len(found) >= n:
        return found[:n]
    for name in ("POTCAR", "OUTCAR"):
        for ending in ("", *OPENERS):
            beside = path.with_name(name + ending)
            if beside.is_file() and beside != path:
                with open_text(beside) as file:
                    titles = [m[1] for line in file if (m := _IN_OUTPUT.search(line))]
                if len(titles) == n:
                    return titles
    raise StructureError(
        "names no elements (as VASP 4 wrote it). Insert a line with their symbols before the numbers of atoms."
    )


def _formula(word: str) -> list[str]:
    """The elements of a word that holds nothing else, such as ``FeO``."""
    symbols = _IN_A_COMMENT.findall(word)
    known = all(atomic_numbers.get(symbol, 0) > 0 for symbol in symbols)
    return symbols if known and "".join(symbols) == word else []


def _positions(lines: _Lines, n: int, *, selective: bool) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates as they are in the file, and which of them may move."""
    positions, movable = np.empty((n, 3)), np.ones((n, 3), dtype=bool)
    for atom in range(n):
        positions[atom], words = lines.numbers(f"position {atom + 1} of {n}")
        if not selective:
            continue
        flags = [_TRUE.fullmatch(word) is not None for word in words[:3]]
        known = [flag or _FALSE.fullmatch(word) for flag, word in zip(flags, words, strict=False)]
        if len(flags) != 3 or not all(known):
            raise StructureError(
                f"line {lines.at}, selective dynamics of atom {atom}: expected three times T or F after the position, "
                f"found {' '.join(words)[:40]!r}. Remove the line 'Selective dynamics' if all atoms may move."
            )
        movable[atom] = flags
    after = lines.lines[lines.at] if lines.at < len(lines.lines) else ""
    if re.match(r"\s*[-+]?\.?\d\S*\s+[-+]?\.?\d\S*\s+[-+]?\.?\d", after):
        raise StructureError(
            f"line {lines.at + 1}: there are more positions than the {n} atoms that the counts in the header say."
        )
    return positions, movable


def _velocities(lines: _Lines, n: int) -> np.ndarray | None:
    """Velocities (Å/fs) of the atoms, if there are any that are not zero."""
    rest = lines.lines[lines.at :]
    if rest and rest[0].strip()[:1].lower() == "l":  # lattice velocities and vectors
        rest = rest[8:]
    if len(rest) <= n or rest[0].strip()[:1].lower() not in ("", "c", "k"):
        return None
    rows = [line.split()[:3] for line in rest[1 : n + 1]]
    try:
        values = np.array([[fortran_float(word) for word in row] for row in rows])
    except ValueError:
        return None
    return values if values.shape == (n, 3) and np.isfinite(values).all() and values.any() else None

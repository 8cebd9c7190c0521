"""SHELX files as AIRSS writes them: every line is read or refused, and spins are moments."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.base import Format, Item, add_note
from mmace_sim.io.opening import bare_name, read_text

_ENDS = frozenset({"END", "HKLF"})
_KNOWN = _ENDS | {
    "CELL", "LATT", "SFAC", "SYMM", "REM", "ZERR", "UNIT", "TITL", "FVAR", "TEMP", "WGHT", "L.S.", "PLAN", "BOND",
}  # fmt: skip
"""First words of lines that are no atoms."""


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    text = read_text(path)
    if not re.search(r"(?im)^\s*(TITL|CELL|SFAC)\b", text):
        raise NotAStructureError("cannot be read: it is no res file.")
    for part in re.split(r"(?im)^(?=[ \t]*TITL\b)", text):  # many are kept in one file
        if part.strip():
            try:
                yield parse_res(part)
            except StructureError as error:
                yield error


def parse_res(text: str) -> Atoms:
    """The structure of a file.

    Args:
        text: Its text: title, cell, elements, and one line for each atom with element, number of the element,
            fractional position, occupancy and, in files of AIRSS with spins, the spin in μB.

    Returns:
        The structure, with name, pressure, energy and space group of AIRSS' title.

    Raises:
        StructureError: If a line cannot be read, atoms are missing or partly occupied, or symmetry would make more.
    """
    found, rows = _lines(text)
    info, n_atoms, is_airss = _title(found.get("TITL", []))
    _refuse_symmetry(found)
    atoms, spins = _atoms(rows, _cell(found.get("CELL", [])), with_spins=is_airss)
    if n_atoms is not None and n_atoms != len(atoms):
        raise StructureError(f"cannot be read: its title says {n_atoms} atoms, but there are {len(atoms)}.")
    atoms.info |= info
    if "energy" in info:
        atoms.calc = SinglePointCalculator(atoms, energy=info["energy"])
    if _ENDS.isdisjoint(found):
        add_note(atoms, "the file ends without END: it may be cut")
    if spins is not None and spins.any():
        set_magmoms(atoms, spins)
        add_note(atoms, "the spins of the last column are taken as moments in μB")
    return atoms


def _lines(text: str) -> tuple[dict[str, list[str]], list[list[str]]]:
    """Words of each known line (the first of its name), and those of the lines that must be atoms."""
    found: dict[str, list[str]] = {}
    rows = []
    for line in text.splitlines():
        words = line.split("!")[0].split()
        key = words[0].upper() if words else "REM"
        if key not in _KNOWN:
            rows.append(words)
        found.setdefault(key, words[1:])
        if key in _ENDS:
            break
    return found, rows


def _refuse_symmetry(found: dict[str, list[str]]) -> None:
    """Only lattice type −1, primitive and without a centre, leaves no atoms to symmetry."""
    lattice = found.get("LATT", ["-1"])[:1]
    named = [f"LATT {' '.join(lattice)}"] * (lattice != ["-1"]) + ["SYMM"] * ("SYMM" in found)
    if named:
        raise StructureError(
            f"cannot be read: {named[0]} means atoms by symmetry that are not written out. Convert it to CIF."
        )


def _numbers(words: list[str], line: str) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise StructureError(f"cannot be read: {line[:60]!r} has something that is no number.") from error
    if not np.isfinite(values).all():
        raise StructureError(f"cannot be read: {line[:60]!r} has a number that is not finite.")
    return values


def _cell(words: list[str]) -> list[float]:
    """Lengths and angles; the first number is a wavelength."""
    values = _numbers(words, "CELL " + " ".join(words))
    if len(values) != 7 or min(values[1:]) <= 0 or max(values[4:]) >= 180:
        raise StructureError("cannot be read: CELL needs a wavelength, three lengths and three angles.")
    return values[1:]


def _title(words: list[str]) -> tuple[dict[str, object], int | None, bool]:
    """What AIRSS says of a structure: name pressure volume enthalpy spin |spin| number (group) n - times."""
    try:
        pressure, _, energy, _, _ = (float(word) for word in words[1:6])
    except ValueError:
        return ({"name": words[0]} if words else {}), None, False
    info: dict[str, object] = {"name": words[0], "pressure": pressure, "energy": energy}
    rest = words[6:]
    n_atoms = int(rest.pop(0)) if rest and rest[0].isdecimal() else None
    if rest and rest[0].startswith("("):
        info["spacegroup"] = rest[0].strip("()")
    if len(rest) > 3 and rest[1:3] == ["n", "-"] and rest[3].isdecimal():
        info["times_found"] = int(rest[3])
    return info, n_atoms, True


def _atoms(rows: list[list[str]], cell: list[float], *, with_spins: bool) -> tuple[Atoms, np.ndarray | None]:
    symbols, positions, spins = [], [], []
    for words in rows:
        line = " ".join(words)
        symbol = re.match(r"[A-Za-z]{1,2}", words[0])
        values = _numbers(words[1:], line)
        if symbol is None or len(values) < 4:
            raise StructureError(f"cannot be read: {line[:60]!r} is no atom with a position.")
        if len(values) > 4 and abs(values[4] - 1.0) > 1e-3 and abs(values[4] - 11.0) > 1e-3:
            raise StructureError(f"cannot be read: {line[:60]!r} is not fully occupied.")
        symbols.append(symbol[0].capitalize())
        positions.append(values[1:4])
        spins.append(values[5] if with_spins and len(values) == 6 else 0.0)
    if not symbols:
        raise StructureError("cannot be read: it holds no atoms.")
    try:
        atoms = Atoms(symbols, scaled_positions=positions, cell=cell, pbc=True)
    except KeyError as error:
        raise StructureError(f"cannot be read: {error} is no element.") from error
    except (AssertionError, ValueError) as error:
        raise StructureError("cannot be read: the angles of CELL make no cell.") from error
    return atoms, np.array(spins) if with_spins else None


FORMAT = Format("res", lambda path: bare_name(path).lower().endswith(".res"), _read)

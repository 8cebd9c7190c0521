"""CASTEP ``.cell`` files: lattice, positions, SPIN of each atom, and constraints of atoms.

ASE's reader starts the program ``castep`` to learn its keywords, which no reading of a file may do.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.constraints import FixAtoms, FixConstraint, FixedLine, FixedPlane
from ase.data import atomic_numbers
from ase.units import Bohr

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.base import Format, Item, add_note
from mmace_sim.io.opening import bare_suffix, read_text

_UNITS = {"ang": 1.0, "bohr": Bohr, "a0": Bohr, "nm": 10.0, "pm": 0.01, "cm": 1e8, "m": 1e10}

_BLOCK = re.compile(r"^\s*%block\s+(\w+)\s*$(.*?)^\s*%endblock\s+\1\s*$", re.I | re.M | re.S)

_SPIN = re.compile(r"\bspin\s*[=:]?\s*(.*)$", re.I)


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    text = re.sub(r"[#!;].*", "", read_text(path))
    blocks = {
        name.lower(): [line.split() for line in body.splitlines() if line.split()]
        for name, body in _BLOCK.findall(text)
    }
    if not blocks:
        raise NotAStructureError("cannot be read: it is no .cell file of CASTEP, it has no block.")
    try:
        yield _structure(
            blocks, fixes_all=bool(re.search(r"^\s*fix_all_ions\s*[=:]?\s*t", text, re.I | re.M))
        )
    except (ValueError, IndexError, KeyError) as error:
        if isinstance(error, StructureError):
            raise
        raise StructureError(f"cannot be read as a .cell file ({type(error).__name__}: {error}).") from error


def _structure(blocks: dict[str, list[list[str]]], *, fixes_all: bool) -> Atoms:
    cell = _lattice(blocks)
    name = next((name for name in ("positions_frac", "positions_abs") if name in blocks), None)
    if name is None:
        raise NotAStructureError("cannot be read: the .cell file has no positions.")
    unit, rows = _with_unit(blocks[name])
    numbers = [_number(row[0]) for row in rows]
    values = np.array([[float(word) for word in row[1:4]] for row in rows]).reshape(-1, 3)
    atoms = Atoms(
        numbers, positions=values @ cell if name == "positions_frac" else values * unit, cell=cell, pbc=True
    )
    spins = [_spin(" ".join(row[4:])) for row in rows]
    if any(spin is not None for spin in spins):
        missing = sum(spin is None for spin in spins)
        if missing:
            add_note(atoms, f"{missing} of {len(spins)} atoms have no SPIN in the file: taken as 0 μB")
        set_magmoms(atoms, [np.zeros(3) if spin is None else spin for spin in spins])
    atoms.set_constraint(
        [FixAtoms(range(len(atoms)))]
        if fixes_all
        else _constraints(blocks.get("ionic_constraints", []), rows)
    )
    return atoms


def _lattice(blocks: dict[str, list[list[str]]]) -> np.ndarray:
    name = next((name for name in ("lattice_cart", "lattice_abc") if name in blocks), None)
    if name is None:
        raise NotAStructureError("cannot be read: the .cell file has no lattice.")
    unit, rows = _with_unit(blocks[name])
    values = np.array([[float(word) for word in row[:3]] for row in rows])
    return (
        values.reshape(3, 3) * unit
        if name == "lattice_cart"
        else Cell.fromcellpar([*values[0] * unit, *values[1]]).array
    )


def _with_unit(rows: list[list[str]]) -> tuple[float, list[list[str]]]:
    """Ångström per unit of length, and the rows below the unit."""
    if len(rows[0]) == 1:
        return _UNITS[rows[0][0].lower()], rows[1:]
    return 1.0, rows


def _number(word: str) -> int:
    symbol = word.split(":")[0].capitalize()
    return int(symbol) if symbol.isdecimal() else atomic_numbers[symbol]


def _spin(text: str) -> np.ndarray | None:
    """SPIN = s along z, or a vector, in μB."""
    found = _SPIN.search(text)
    if found is None:
        return None
    numbers = re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?", found[1])
    values = [float(number.lower().replace("d", "e")) for number in numbers[:3]]
    return np.array(values if len(values) == 3 else [0.0, 0.0, values[0]])


def _constraints(lines: list[list[str]], rows: list[list[str]]) -> list[FixConstraint]:
    """Each line forbids one direction to one atom: number, element, index among its element, direction."""
    symbols = [_number(row[0]) for row in rows]
    forbidden: dict[int, list[list[float]]] = {}
    for _, element, index, *direction in lines:
        places = [place for place, number in enumerate(symbols) if number == _number(element)]
        forbidden.setdefault(places[int(index) - 1], []).append([float(word) for word in direction])
    constraints: list[FixConstraint] = []
    for atom, directions in forbidden.items():
        _, sizes, axes = np.linalg.svd(np.array(directions))
        rank = int((sizes > 1e-8).sum())
        if rank == 3:
            constraints.append(FixAtoms([atom]))
        elif rank:
            constraints.append(FixedLine(atom, axes[2]) if rank == 2 else FixedPlane(atom, axes[0]))
    return constraints


FORMAT = Format("a .cell file of CASTEP", lambda path: bare_suffix(path) == ".cell", _read)

"""MLIP-2 and MLIP-3 ``.cfg`` files of magnetic moment tensor potentials.

Columns ``magmom_x magmom_y magmom_z`` hold the moments in μB (collinear ones along x), ``en_der_mx en_der_my
en_der_mz`` the magnetic forces in eV/μB. The public data sets of the authors write −∂E/∂m there (Comput. Mater. Sci.
245, 113331 (2024)), and so they are read; ``PlusStress`` is −V·stress in eV.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import StructureError
from mmace_sim.io.base import Format, Item, symbols_of, type_map_beside
from mmace_sim.io.opening import bare_suffix, open_text
from mmace_sim.io.rows import set_results

_COLUMNS = {
    "forces": ("fx", "fy", "fz"),
    "magmoms": ("magmom_x", "magmom_y", "magmom_z"),
    "magforces": ("en_der_mx", "en_der_my", "en_der_mz"),
}

Sections = dict[str, tuple[list[str], list[list[str]]]]

_STRESS = ("xx", "yy", "zz", "yz", "xz", "xy")


def _matches(path: Path) -> bool:
    if not path.is_file() or bare_suffix(path) != ".cfg":
        return False
    with open_text(path) as file:  # AtomEye has the same ending
        return next((line for line in file if line.strip()), "").strip() == "BEGIN_CFG"


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    type_map = type_map_beside(path)
    with open_text(path) as file:
        for block in _blocks(file):
            try:
                yield _structure(_sections(block), type_map)
            except StructureError as error:
                yield error


def _blocks(lines: Iterable[str]) -> Iterator[list[list[str]]]:
    """Words of the lines of each configuration, up to END_CFG; without it the configuration is cut off."""
    block: list[list[str]] | None = None
    for line in lines:
        words = line.split()
        if words == ["BEGIN_CFG"]:
            if block is not None:
                yield block
            block = []
        elif block is not None and words:
            block.append(words)
            if words == ["END_CFG"]:
                yield block
                block = None
    if block is not None:
        yield block


def _sections(block: list[list[str]]) -> Sections:
    """Columns and rows of each section of a configuration, by the section's first word."""
    if not block or block[-1] != ["END_CFG"]:
        raise StructureError("ends without END_CFG: the file is cut off")
    sections: Sections = {}
    rows: list[list[str]] = []
    for words in block[:-1]:
        if words[0] in ("Size", "Supercell", "SuperCell", "Energy", "Feature") or words[0].endswith(":"):
            rows = []
            sections[words[0].rstrip(":").lower()] = (words[1:], rows)
        else:
            rows.append(words)
    return sections


def _structure(sections: Sections, type_map: list[str]) -> Atoms:
    if "atomdata" not in sections or "size" not in sections:
        raise StructureError("has no AtomData or no Size")
    columns, rows = sections["atomdata"]
    n_atoms = int(_numbers(sections, "size")[0])
    if len(rows) != n_atoms or any(len(row) != len(columns) for row in rows):
        raise StructureError(
            f"AtomData has not {n_atoms} rows of {len(columns)} columns, as Size and its header say"
        )
    table = np.array([[_number(word) for word in row] for row in rows]).reshape(n_atoms, len(columns))
    column = {name: table[:, k] for k, name in enumerate(columns)}
    cell = _numbers(sections, "supercell").reshape(-1, 3) if "supercell" in sections else np.zeros((0, 3))
    if len(cell) not in (0, 3):
        raise StructureError(f"Supercell has {len(cell)} vectors; only 3, or none, can be read")
    if "type" not in column:
        raise StructureError("AtomData has no column type")
    atoms = Atoms(
        symbols_of(column["type"].astype(int), type_map), cell=cell if len(cell) else None, pbc=len(cell) == 3
    )
    atoms.positions = _positions(column, cell)
    labels = {label: _vectors(column, names) for label, names in _COLUMNS.items()}
    energy = float(_numbers(sections, "energy")[0]) if "energy" in sections else None
    set_results(atoms, labels | {"energy": energy, "stress": _stress(sections, atoms)})
    return atoms


def _positions(column: dict[str, np.ndarray], cell: np.ndarray) -> np.ndarray:
    cartesian = _vectors(column, ("cartes_x", "cartes_y", "cartes_z"))
    direct = _vectors(column, ("direct_x", "direct_y", "direct_z"))
    if cartesian is not None:
        return cartesian
    if direct is None or len(cell) != 3:
        raise StructureError(
            "AtomData has no columns cartes_x cartes_y cartes_z (or direct_x ... with a Supercell)"
        )
    return direct @ cell


def _vectors(column: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    given = [name for name in names if name in column]
    if given and len(given) < len(names):
        raise StructureError(f"AtomData has only {' '.join(given)} of the columns {' '.join(names)}")
    return np.stack([column[name] for name in names], axis=1) if given else None


def _stress(sections: Sections, atoms: Atoms) -> np.ndarray | None:
    """Stress in Voigt order, tension positive, in eV/Å³."""
    if "stress" in sections:
        raise StructureError(
            "holds the obsolete field Stress; convert the file to PlusStress with a current MLIP"
        )
    if "plusstress" not in sections:
        return None
    names, _ = sections["plusstress"]
    if sorted(names) != sorted(_STRESS):
        raise StructureError(f"PlusStress names {' '.join(names)}, expected {' '.join(_STRESS)}")
    values = dict(zip(names, _numbers(sections, "plusstress"), strict=True))
    return -np.array([values[name] for name in _STRESS]) / atoms.cell.volume


def _numbers(sections: Sections, name: str) -> np.ndarray:
    words, rows = sections[name]
    words = (words if name in ("size", "energy") else []) + [word for row in rows for word in row]
    if not words:
        raise StructureError(f"{name} has no value")
    return np.array([_number(word) for word in words])


def _number(word: str) -> float:
    try:
        return float(word) if word not in ("true", "false") else float(word == "true")  # column ghost
    except ValueError as error:
        raise StructureError(f"{word!r} is not a number") from error


FORMAT = Format(
    "an MLIP configuration file",
    _matches,
    _read,
    without_moments="AtomData has no columns magmom_x magmom_y magmom_z",
)

"""Spin models of VAMPIRE: ``input``, and the material file and unit cell file that it names.

VAMPIRE's energy is −Σ_{i<j} J_ij e_i·e_j over unique pairs with unit vectors, J in Joule: J' = J. The unit
cell file lists each pair from both ends.

References:
    github.com/richard-evans/vampire, src/unitcell/read.cpp and src/unitcell/read_interactions.cpp.
"""

import re
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from ase.units import _e
from jaxtyping import Float

from mmace_sim.errors import StructureError
from mmace_sim.io.spin_files import SpinFile, numbers, read_lines

CONTROL: str = "input"
"""Name of the file that names the others."""
_MU_B = 9.2740100783e-24
_VALUES = {"isotropic": 1, "vectorial": 3, "tensorial": 9, "0": 1, "1": 3, "2": 9}
"""Numbers of each link, by the type of exchange."""
_LINE = re.compile(r"material\[(\d+)\]:([a-z-]+)(?:\[(\d+)\])?\s*=?\s*(.*)")


def read_vampire(folder: Path) -> SpinFile:
    """Read the spin model of a folder.

    Args:
        folder: Folder with ``input``.

    Raises:
        StructureError: If a file is missing or cannot be understood.
    """
    settings = _settings(folder / CONTROL)
    if "material:unit-cell-file" not in settings:
        raise StructureError(
            f"{CONTROL}: no material:unit-cell-file. Crystals that VAMPIRE builds itself are not read; write their "
            "pairs to a unit cell file (.ucf)."
        )
    materials = _materials(folder / settings.get("material:file", "material"))
    return _unit_cell(folder / settings["material:unit-cell-file"], materials).checked()


def _settings(path: Path) -> dict[str, str]:
    settings = {}
    for line in read_lines(path, "#"):
        key, _, value = line.partition("=")
        settings[key.strip().lower()] = value.split("!")[0].strip().strip("\"'")
    return settings


def _materials(path: Path) -> dict[int, dict[str, str]]:
    """Settings of each material, numbered from 0 as in the unit cell file; ``key[n]`` for those with a number."""
    materials: dict[int, dict[str, str]] = {}
    for line in read_lines(path, "#"):
        match = _LINE.match(line)
        if match:
            number, key, index, value = match.groups()
            name = key if index is None else f"{key}[{index}]"
            materials.setdefault(int(number) - 1, {})[name] = value.strip().strip("\"'")
    if not materials:
        raise StructureError(f"{path.name}: holds no line of a material.")
    return materials


def _moment(material: dict[str, str]) -> Float[np.ndarray, "3"]:
    """Moment of a material, in μB; along z where its direction is random or not told."""
    length, _, unit = material.get("atomic-spin-moment", "1 !muB").partition("!")
    value = numbers(length.split()[:1] or ["?"], "atomic-spin-moment")[0]
    if unit.strip().lower() in ("j/t", "j/tesla"):
        value /= _MU_B
    direction = material.get("initial-spin-direction", "0,0,1")
    if direction.lower().startswith("random"):
        direction = "0,0,1"
    vector = np.array(numbers(direction.replace(",", " ").split()[:3], "initial-spin-direction"))
    if len(vector) != 3 or not vector.any():
        raise StructureError(f"initial-spin-direction = {direction}: expected three numbers, not all zero.")
    return value * vector / np.linalg.norm(vector)


def _unit_cell(path: Path, materials: dict[int, dict[str, str]]) -> SpinFile:
    lines = [line.split() for line in read_lines(path, "#")]
    try:
        lengths = np.array(numbers(lines[0][:3], "unit cell size"))
        shape = np.array([numbers(words[:3], "unit cell vectors") for words in lines[1:4]])
        n_atoms = int(lines[4][0])
        atoms, (count, kind), links = lines[5 : 5 + n_atoms], lines[5 + n_atoms][:2], lines[6 + n_atoms :]
        links = links[: int(count)]
    except (IndexError, ValueError) as error:
        raise StructureError(f"{path.name}: ends early, or is no unit cell file ({error}).") from error
    if len(links) < int(count):
        raise StructureError(f"{path.name}: announces {count} interactions and holds {len(links)}.")
    cell = lengths[:, None] * shape
    numbers_of = [int(words[4]) if len(words) > 4 else 0 for words in atoms]
    if missing := sorted(set(numbers_of) - set(materials)):
        raise StructureError(f"{path.name}: material {missing[0] + 1} is not in the material file.")
    places = np.array([numbers(words[1:4], f"{path.name}, atom {words[0]}") for words in atoms])
    used = [materials[k] for k in numbers_of]
    symbols = [m.get("material-element", "X").title() for m in used]
    values, normalised, notes = _exchange(links, kind, path.name)
    ends = np.array([[int(word) for word in words[1:6]] for words in links]).reshape(-1, 5)
    if len(ends) and (ends[:, :2].min() < 0 or ends[:, :2].max() >= n_atoms):
        raise StructureError(f"{path.name}: an interaction names an atom outside of 0 to {n_atoms - 1}.")
    if normalised:
        values = values * [_constant(used[i], numbers_of[j]) for i, j in ends[:, :2].tolist()]
    notes += [
        f"left out: {key.replace('-', ' ')}."
        for key in ("uniaxial-anisotropy-constant", "cubic-anisotropy-constant", "biquadratic-exchange")
        if any(key in material for material in used)
    ]
    return SpinFile(
        cell,
        places @ cell,
        np.array([_moment(material) for material in used]),
        [symbol if symbol in chemical_symbols else "X" for symbol in symbols],
        ends[:, 0],
        ends[:, 1],
        ends[:, 2:],
        values / _e,
        notes,
    )


def _exchange(links: list[list[str]], kind: str, name: str) -> tuple[np.ndarray, bool, list[str]]:
    """J of each link in Joule, or relative to those of the materials; what of it is left out."""
    kind = kind.lower()
    normalised = kind.startswith("normalised-")
    n_values = _VALUES.get(kind.removeprefix("normalised-"))
    if n_values is None:
        raise StructureError(f"{name}: exchange of type {kind!r}; expected one of {', '.join(_VALUES)}.")
    rows = [numbers(words[6 : 6 + n_values], f"{name}, interaction {words[0]}") for words in links]
    if any(len(row) != n_values for row in rows):
        raise StructureError(f"{name}: an interaction has fewer than {n_values} values ({kind}).")
    values = np.array(rows).reshape(-1, n_values)
    notes = [] if n_values == 1 else ["left out: the anisotropic part of the exchange."]
    columns = {1: [0], 3: [0, 1, 2], 9: [0, 4, 8]}[n_values]
    return values[:, columns].mean(axis=1), normalised, notes


def _constant(material: dict[str, str], other: int) -> float:
    """Exchange of a material with another, in Joule."""
    key = f"exchange-matrix[{other + 1}]"
    if key not in material:
        raise StructureError(f"material file: no {key}, which exchange of a normalised type needs.")
    return numbers(material[key].split("!")[0].split()[:1], key)[0]

"""Everything else: formats that ASE reads and that are text, from a list.

Scripts, pickles, bundles and addresses of servers are not in it. Counts in a header are compared with the size of the
file before ASE's reader believes them.
"""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat, ioformats, read

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.graph.atoms import INITIAL_MAGMOMS, set_magmoms
from mmace_sim.io.abinit import input_words, starting_moments
from mmace_sim.io.base import Format, Item, add_note
from mmace_sim.io.opening import bare_name, open_text, plain_file, read_text
from mmace_sim.io.poscar import read_poscar

FORMATS: frozenset[str] = frozenset(
    {"abinit-in", "abinit-out", "aims", "aims-output", "castep-castep", "castep-geom", "castep-md",
     "cfg", "cif", "cjson", "cp2k-restart", "crystal", "cube", "dftb", "dlp4", "dmol-arc", "dmol-car", "dmol-incoor",
     "elk", "elk-in", "eon", "espresso-in", "espresso-out", "exciting", "extxyz", "findsym", "gaussian-in",
     "gaussian-out", "gen", "gpaw-out", "gromacs", "gromos", "jsv", "lammps-data", "lammps-dump-text", "magres", "mol",
     "mustem", "nwchem-in", "nwchem-out", "octopus-in", "onetep-in", "onetep-out", "orca-output", "prismatic",
     "proteindatabank", "qbox", "rmc6f", "runnerdata", "sdf", "siesta-xv", "struct", "struct_out", "sys",
     "turbomole", "turbomole-gradient", "v-sim", "vasp", "vasp-out", "vasp-xdatcar", "vasp-xml", "vti", "vtu", "wout",
     "xsd", "xsf", "xtd", "xyz"}
)  # fmt: skip
"""Formats that are read: text that holds data."""

_ENDINGS = {".vasp": "vasp", ".poscar": "vasp", ".contcar": "vasp"}

_SIGNS: dict[str, str] = {
    "xsf": r"(?i)PRIMVEC|PRIMCOORD|ATOMS|CRYSTAL",
    "proteindatabank": r"(?m)^(ATOM|HETATM|CRYST1)",
}
"""What a file of a format holds; ASE reads a file without it as a structure without atoms, or not at all."""


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    name = _format_name(path)
    if name not in FORMATS:
        raise StructureError(
            f"cannot be read: files of the format {name!r} can hold programs, or no structure. Convert it to CIF, "
            "POSCAR or extxyz with the program that wrote it."
        )
    text = read_text(path)
    if name in _SIGNS and not re.search(_SIGNS[name], text):
        raise NotAStructureError(f"cannot be read: it is no {name} file.")
    if name == "vasp":
        yield read_poscar(text, path)
        return
    if name in _COUNTS:
        _COUNTS[name](text)
    if get_ioformat(name).acceptsfd and not get_ioformat(name).isbinary:
        with open_text(path) as file:
            frames = read(file, index=slice(None), format=name)
    else:
        with plain_file(path) as plain:
            whole = str(plain.resolve())
            frames = read(whole, index=slice(None), format=name, do_not_split_by_at_sign=True)
    for atoms in [frames] if isinstance(frames, Atoms) else frames:
        _take_starting_moments(atoms, name, text)
        yield atoms


def _take_starting_moments(atoms: Atoms, name: str, text: str) -> None:
    """Moments of inputs that ASE reads otherwise than they are meant, or not."""
    words = set(input_words(text)) if name == "abinit-in" else set()
    if name == "espresso-in" and re.search(r"(?i)starting_magnetization", text):
        atoms.arrays.pop(INITIAL_MAGMOMS, None)
        add_note(
            atoms,
            "starting_magnetization of Quantum ESPRESSO is a part of the valence electrons of a species, no moment in "
            "μB: it is not read",
        )
    elif "spinat" in words:
        moments = starting_moments(text, len(atoms))
        if moments is None:
            add_note(atoms, "spinat has not three numbers for each atom: it is not read")
        else:
            set_magmoms(atoms, moments)
    elif any(word.startswith("spinat") for word in words):
        add_note(atoms, "spinat of single data sets is not read")


def _format_name(path: Path) -> str:
    """Name of the format in ASE, by the name of the file, then by its content."""
    ending = Path(bare_name(path)).suffix.lower()
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    try:
        with plain_file(path) as plain:
            name = filetype(str(plain.resolve()))
        if name in ioformats:
            return name
        raise UnknownFileTypeError(name)
    except UnknownFileTypeError as error:
        raise NotAStructureError("cannot be read: it is of no known format. Check its ending.") from error


def _check_xdatcar(text: str) -> None:
    lines = text.split("\n")
    if len(lines) < 8 or not _are_numbers(lines[1].split()[:3]):
        raise NotAStructureError("cannot be read: it is no XDATCAR, its second line is no number.")
    for line in lines[5:7]:
        words = line.split("!")[0].split()
        if words and all(word.isdecimal() for word in words):
            _check_count(sum(int(word[:18]) for word in words), len(lines))
            return


def _are_numbers(words: list[str]) -> bool:
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False


def _check_first_count(text: str) -> None:
    """The first number of the first line, or of the third in a cube file, counts atoms."""
    words = text.split(None, 1)[:1]
    if not words or not words[0].lstrip("+-").isdecimal():
        raise NotAStructureError("cannot be read: it does not begin with a number of atoms.")
    _check_count(int(words[0][:18]), text.count("\n") + 1)


def _check_cube(text: str) -> None:
    rows = [line.split() for line in text.split("\n")[2:6]]
    if len(rows) < 4 or not all(row and _are_numbers(row) for row in rows):
        raise NotAStructureError("cannot be read: it is no cube file.")
    _check_count(abs(int(float(rows[0][0]))), len(text))
    _check_count(math.prod(abs(int(float(row[0]))) for row in rows[1:]), len(text))


def _check_xsf(text: str) -> None:
    for block in re.finditer(r"(?im)^\s*(?:PRIM|CONV)COORD.*\n\s*(\d+)", text):
        _check_count(int(block[1][:18]), text.count("\n") + 1)
    for block in re.finditer(r"(?im)^\s*BEGIN_DATAGRID_3D.*\n\s*(\d+)\s+(\d+)\s+(\d+)", text):
        _check_count(math.prod(int(size[:18]) for size in block.groups()), len(text))
    for steps in re.finditer(r"(?im)^\s*ANIMSTEPS\s+(\d+)", text):
        _check_count(int(steps[1][:18]), len(text))


def _check_lammps(text: str) -> None:
    for count in re.finditer(r"(?m)^\s*(\d+)\s+(?:atoms|bonds|angles|dihedrals|impropers)\b", text):
        _check_count(int(count[1][:18]), text.count("\n") + 1)
    for count in re.finditer(r"ITEM: NUMBER OF ATOMS\s+(\d+)", text):
        _check_count(int(count[1][:18]), text.count("\n") + 1)


def _check_atomeye(text: str) -> None:
    for count in re.finditer(r"(?i)Number of particles\s*=\s*(\d+)", text):
        _check_count(int(count[1][:18]), text.count("\n") + 1)
    for count in re.finditer(r"(?i)entry_count\s*=\s*(\d+)", text):
        _check_count(int(count[1][:18]), len(text))


def _check_count(announced: int, present: int) -> None:
    if announced > present:
        raise StructureError(
            f"cannot be read: its header announces {announced} values, but the file has room for {present} at most. "
            "Get it again."
        )


_COUNTS: dict[str, Callable[[str], None]] = {
    "vasp-xdatcar": _check_xdatcar, "gen": _check_first_count, "xyz": _check_first_count,
    "cube": _check_cube, "xsf": _check_xsf, "lammps-data": _check_lammps, "lammps-dump-text": _check_lammps,
    "cfg": _check_atomeye,
}  # fmt: skip
"""What compares the counts of a header with the size of the file, by format."""

FORMAT = Format("a file of ASE", lambda path: path.is_file(), _read)

"""Structures from files and folders, moments included, and the checks before anything is computed with them."""

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms, has_magmoms, set_magmoms
from mmace_sim.io.mcif import is_magnetic_cif, read_mcif
from mmace_sim.text import printable
from mmace_sim.workflows.checks import StructureCheck, check_structure
from mmace_sim.workflows.initial_moments import initial_magmoms

__all__ = [
    "FailedStructure",
    "LoadedStructure",
    "StructureCheck",
    "check_structure",
    "find_structures",
    "initial_magmoms",
    "is_run_folder",
    "load_structures",
    "read_structures",
]

SUFFIXES: frozenset[str] = frozenset(
    {".cif", ".mcif", ".vasp", ".poscar", ".contcar", ".xyz", ".extxyz", ".json", ".traj", ".db", ".xsf", ".cell",
     ".res", ".gen", ".pdb", ".xml"}
)  # fmt: skip
"""Endings that are taken from a folder; a file named explicitly may have any that ASE can read."""

PREFIXES: tuple[str, ...] = ("POSCAR", "CONTCAR", "OUTCAR", "XDATCAR")
"""Beginnings of file names that are taken from a folder."""

_SITE_KEYS = ("magmom", "magmoms", "magnetic_moments", "REF_magmom")


@dataclass
class LoadedStructure:
    """One structure of a file.

    Attributes:
        file: The file, as it was given or found.
        index: Position in the file, from 0.
        name: Short unique name, such as ``foo.extxyz#3``; without a number if the file holds one structure.
        atoms: The structure, moments (if the file has any) as vectors in ``initial_magmoms``.
        notes: What the user should know, for the log and the summary.
    """

    file: str
    index: int
    name: str
    atoms: Atoms
    notes: list[str] = field(default_factory=list)


@dataclass
class FailedStructure:
    """A file, or a structure of it, that cannot be used.

    Attributes:
        file: The file.
        message: What is wrong and what to do.
        index: Position in the file, from 0.
        name: Short name.
    """

    file: str
    message: str
    index: int = 0
    name: str = ""


def is_run_folder(folder: Path) -> bool:
    """Say whether a folder was written by one of our commands.

    Args:
        folder: Any folder.

    Returns:
        True if it holds a journal of ours, or a summary beside its configuration.
    """
    journal = (folder / "finished.jsonl").is_file()
    return journal or ((folder / "summary.json").is_file() and (folder / "config.yaml").is_file())


def find_structures(paths: Iterable[str | Path]) -> list[Path]:
    """List the structure files behind files and folders, in the order of the arguments, each once.

    Folders are searched to any depth, in alphabetical order. Hidden files and folders are skipped, and so are folders
    that our own commands wrote; naming such a folder itself gives its ``relaxed.extxyz``.

    Args:
        paths: Files and folders.

    Returns:
        The files. A file that was named but does not exist is included: reading it reports the error.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
        elif is_run_folder(path):
            found[path / "relaxed.extxyz"] = None
        else:
            found.update(dict.fromkeys(_walk(path)))
    return list(found)


def _walk(folder: Path) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = [name for name in folders if not name.startswith(".") and not is_run_folder(here / name)]
        files += [here / name for name in names if _looks_like_structure(name)]
    return sorted(files)


def _looks_like_structure(name: str) -> bool:
    return not name.startswith(".") and (Path(name).suffix.lower() in SUFFIXES or name.startswith(PREFIXES))


def load_structures(paths: Iterable[str | Path]) -> list[LoadedStructure | FailedStructure]:
    """Read all structures behind files and folders; a file that cannot be read does not stop the others.

    Args:
        paths: Files and folders, see `find_structures`.

    Returns:
        Structures and failures, in the order of the files.
    """
    items: list[LoadedStructure | FailedStructure] = []
    for path in find_structures(paths):
        try:
            items += read_structures(path)
        except StructureError as error:
            items.append(FailedStructure(str(path), str(error), name=path.name))
    _make_names_unique(items)
    return items


def _make_names_unique(items: Sequence[LoadedStructure | FailedStructure]) -> None:
    """Use the path in place of the file name where two files have the same name; names are printable."""
    owners: dict[str, set[str]] = {}
    for item in items:
        owners.setdefault(Path(item.file).name, set()).add(item.file)
    for item in items:
        short = Path(item.file).name
        if len(owners[short]) > 1:
            item.name = item.file + item.name.removeprefix(short)
        item.name = printable(item.name)


def read_structures(path: str | Path) -> list[LoadedStructure]:
    """Read every structure of a file, with its magnetic moments.

    Anything that ASE reads; moments in mCIF are expanded by the magnetic symmetry, moments of pymatgen JSON are taken
    from the site property ``magmom`` or the spin of the species. Elsewhere they are looked for as described in
    `mmace_sim.graph.atoms`: ``initial_magmoms``, calculator results, then arrays ``magmoms``, ``magmom``,
    ``REF_magmom``, ``magnetic_moments``. Scalars become vectors along z.

    Args:
        path: The file.

    Returns:
        The structures, in the order of the file.

    Raises:
        StructureError: If the file cannot be read or holds no structure; the message names the file.
    """
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = [_normalise(atoms) for atoms in _read_any(path)]
    except StructureError as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise StructureError(
            f"{path}: cannot be read ({reason}). Check that it is complete and in a format that ASE reads "
            "(CIF, mCIF, POSCAR, extxyz, JSON, ...) with the usual ending."
        ) from error
    if not frames:
        raise StructureError(f"{path}: holds no structure.")
    many = len(frames) > 1
    return [
        LoadedStructure(str(path), index, f"{path.name}#{index}" if many else path.name, atoms)
        for index, atoms in enumerate(frames)
    ]


def _check_file(path: Path) -> None:
    if not path.exists():
        raise StructureError(f"{path}: no such file or folder. Check the path.")
    if not os.access(path, os.R_OK):
        raise StructureError(f"{path}: not readable. Check its permissions.")
    if path.stat().st_size == 0:
        raise StructureError(f"{path}: the file is empty. Write it again, or remove it.")


def _read_any(path: Path) -> list[Atoms]:
    """All frames, by the reader that keeps the moments."""
    suffix = path.suffix.lower()
    if suffix in (".cif", ".mcif") and is_magnetic_cif(path.read_text(encoding="utf-8", errors="replace")):
        return read_mcif(path)
    if suffix == ".json":
        data = json.loads(path.read_text(encoding="utf-8"))
        structures = _pymatgen_dicts(data)
        if structures:
            return [_from_pymatgen(item) for item in structures]
    from ase.io import read

    known = {".mcif": "cif", ".vasp": "vasp", ".poscar": "vasp", ".contcar": "vasp"}
    frames = read(path, index=":", format=known.get(suffix))
    return [frames] if isinstance(frames, Atoms) else list(frames)


def _normalise(atoms: Atoms) -> Atoms:
    """Put the moments where everything else looks for them, and drop what belongs to the file format."""
    occupancy = atoms.info.pop("occupancy", None) or {}
    if any(
        len(site) > 1 or any(abs(part - 1) > 1e-3 for part in site.values()) for site in occupancy.values()
    ):
        raise StructureError("sites are partially occupied; give an ordered structure (e.g. a supercell).")
    for key in ("spacegroup", "unit_cell"):
        atoms.info.pop(key, None)
    atoms.arrays.pop("spacegroup_kinds", None)
    results = getattr(atoms.calc, "results", None) or {}
    per_atom = results.get("magmom")  # ASE's reader files an extxyz column "magmom" as the total moment
    if np.ndim(per_atom) > 0 and not has_magmoms(atoms):
        set_magmoms(atoms, per_atom)
    elif has_magmoms(atoms):
        set_magmoms(atoms, get_magmoms(atoms))
    for name in ("magmoms", "magmom", "magnetic_moments"):
        atoms.arrays.pop(name, None)
    atoms.calc = None
    return atoms


def _pymatgen_dicts(data: Any) -> list[dict[str, Any]]:
    """The pymatgen structures in parsed JSON: one, a list of them, or entries that hold one as ``structure``."""
    if isinstance(data, list):
        return [found for item in data for found in _pymatgen_dicts(item)]
    if not isinstance(data, dict):
        return []
    if "sites" in data and ("lattice" in data or data.get("@class") in ("Molecule", "IMolecule")):
        return [data]
    return _pymatgen_dicts(data["structure"]) if isinstance(data.get("structure"), dict) else []


def _from_pymatgen(data: dict[str, Any]) -> Atoms:
    """Atoms with moments from the dictionary of a pymatgen Structure or Molecule."""
    from pymatgen.core import Molecule, Structure

    structure = Structure.from_dict(data) if "lattice" in data else Molecule.from_dict(data)
    if not structure.is_ordered:
        raise StructureError("sites are partially occupied; give an ordered structure (e.g. a supercell).")
    periodic = {"cell": structure.lattice.matrix, "pbc": structure.lattice.pbc} if "lattice" in data else {}
    numbers = [site.specie.Z for site in structure]
    atoms = Atoms(numbers, positions=structure.cart_coords, **periodic)
    moments = [_site_moment(site) for site in structure]
    missing = [index for index, moment in enumerate(moments) if moment is None]
    if 0 < len(missing) < len(moments):
        raise StructureError(
            f"site {missing[0]} has no moment but others have; give one (0 for none) to every site."
        )
    if not missing:
        scalar = all(np.ndim(moment) == 0 for moment in moments)
        set_magmoms(atoms, moments if scalar else [_as_vector(moment) for moment in moments])
    return atoms


def _site_moment(site: Any) -> Any:
    """Moment of a pymatgen site as a number, a vector or None."""
    moment = next((site.properties[key] for key in _SITE_KEYS if site.properties.get(key) is not None), None)
    if moment is None:
        moment = getattr(site.specie, "spin", None)
    if isinstance(moment, dict) and "moment" in moment:
        from pymatgen.electronic_structure.core import Magmom

        moment = Magmom(moment["moment"], moment.get("saxis", (0, 0, 1)))
    return moment.global_moment if hasattr(moment, "global_moment") else moment


def _as_vector(moment: Any) -> Any:
    return (0.0, 0.0, moment) if np.ndim(moment) == 0 else moment

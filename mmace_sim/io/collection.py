"""Structures from files and folders, moments included: the only door from the disk for commands and for Python."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath

from ase import Atoms

from mmace_sim.base.text import printable
from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.io import read_atoms
from mmace_sim.io.opening import bare_name, bare_suffix, check_regular

_log = logging.getLogger(__name__)

SUFFIXES: frozenset[str] = frozenset(
    {".cif", ".mcif", ".vasp", ".poscar", ".contcar", ".xyz", ".extxyz", ".json", ".traj", ".db", ".xsf", ".cell",
     ".res", ".gen", ".pdb", ".xml", ".parquet"}
)  # fmt: skip
"""Endings that are taken from a folder; a file named explicitly may have any that ASE can read."""

PREFIXES: tuple[str, ...] = ("POSCAR", "CONTCAR", "OUTCAR", "XDATCAR")
"""Beginnings of file names that are taken from a folder."""

CERTAIN: frozenset[str] = frozenset({".cif", ".mcif", ".vasp", ".poscar", ".contcar", ".extxyz", ".traj"})
"""Endings that nothing but structures have: such a file with other content is broken, unless it is empty."""

RESULTS: tuple[str, ...] = ("OUTCAR", "XDATCAR", "vasprun")
"""Beginnings of names of what VASP writes beside the structure that it ends with."""


VOLUMES: str = "volumes"
"""Folder of the parts of a large run, each a run of its own."""

RELAXED: str = "relaxed.extxyz"
"""File of a run that holds what structures have become."""


@dataclass
class LoadedStructure:
    """One structure of a file.

    Attributes:
        file: The file, as it was given or found.
        index: Position in the file, from 0.
        name: Short unique name, such as ``foo.extxyz#3``; without a number if the file holds one structure.
        atoms: The structure, moments (if the file has any) as vectors in ``initial_magmoms``.
        notes: What the user should know, for the log and the summary.
        guessed_moments: The moments were initialised, not read.
        model: Name of the model that it is given to.
    """

    file: str
    index: int
    name: str
    atoms: Atoms
    notes: list[str] = field(default_factory=list)
    guessed_moments: bool = False
    model: str = ""


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

    Returns:
        True if it holds a journal of ours, or a summary beside its configuration.
    """
    journal = (folder / "finished.jsonl").is_file()
    return journal or ((folder / "summary.json").is_file() and (folder / "config.yaml").is_file())


def find_structures(paths: Iterable[str | Path]) -> Iterator[Path]:
    """The structure files behind files and folders, in the order of the arguments, each once.

    Folders are searched to any depth, in alphabetical order. Hidden files and folders are skipped, and so are folders
    that our own commands wrote; naming such a folder itself gives its ``relaxed.extxyz``, or those of its volumes.

    Args:
        paths: Files and folders.

    Yields:
        The files. A file that was named but does not exist is included: reading it reports the error.
    """
    paths = [Path(path) for path in paths]
    known: set[Path] = set()
    for path in paths:
        for file in _files_behind(path):
            if file not in known:
                yield file
            if len(paths) > 1:  # one folder alone holds nothing twice
                known.add(file)


def _files_behind(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return [path]
    if not is_run_folder(path):
        return _walk(path)
    return sorted(path.glob(f"{VOLUMES}/*/{RELAXED}")) or [path / RELAXED]


def _walk(folder: Path) -> Iterator[Path]:
    """Files of a folder in alphabetical order, those of one folder at a time."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in entries)
    except OSError:  # not readable
        return
    for name, is_folder, is_link in found:
        path = folder / name
        if is_folder and not (is_link or name.startswith(".") or is_run_folder(path)):
            yield from _walk(path)
        elif not is_folder and _looks_like_structure(name):
            yield path


def _looks_like_structure(name: str) -> bool:
    path = PurePath(name)
    return (
        not name.startswith(".")
        and not name.endswith("~")
        and (bare_suffix(path) in SUFFIXES or bare_name(path).startswith(PREFIXES))
    )


def _is_beside_its_structure(path: Path) -> bool:
    """Whether a file is the output of a run of VASP whose last structure lies beside it."""
    if not path.name.startswith(RESULTS):
        return False
    return _has_contcar(path.parent)


@lru_cache(maxsize=1)
def _has_contcar(folder: Path) -> bool:
    """Asked for each file of a folder in turn."""
    return any(_looks_like_structure(other.name) for other in folder.glob("CONTCAR*"))


def load_structures(
    paths: Iterable[str | Path], on_skipped: Callable[[FailedStructure], None] | None = None
) -> list[LoadedStructure | FailedStructure]:
    """Read all structures behind files and folders; a file that cannot be read does not stop the others.

    Files in folders that hold no structure (notes, logs, empty files, pipes, the OUTCAR beside a CONTCAR) are passed
    over.
    Named themselves, they are failures, and so are files in folders with an ending of `CERTAIN`.

    Args:
        paths: Files and folders, see `find_structures`.
        on_skipped: Called with every file that is passed over.

    Returns:
        Structures and failures, in the order of the files.
    """
    _has_contcar.cache_clear()
    paths = [Path(path) for path in paths]
    named = {path for path in paths if not path.is_dir()}
    items: list[LoadedStructure | FailedStructure] = []
    for path in find_structures(paths):
        items += load_file(path, named=path in named, on_skipped=on_skipped)
    _make_names_unique(items)
    return items


def load_file(
    path: Path,
    *,
    named: bool,
    on_skipped: Callable[[FailedStructure], None] | None = None,
    bounds: Sequence[int] = (),
) -> list[LoadedStructure | FailedStructure]:
    """Read the structures of one file, see `load_structures`.

    Args:
        path: The file.
        named: Whether it was named itself.
        on_skipped: Called if it is passed over.
        bounds: Read only the structures between these, of `mmace_sim.io.find_bounds`.

    Returns:
        Structures and failures.
    """
    try:
        if not named and _is_beside_its_structure(path):
            raise NotAStructureError(f"{path}: output of a run whose structure is in CONTCAR beside it.")
        return _read(path, bounds)
    except NotAStructureError as error:
        skipped = FailedStructure(str(path), str(error), name=path.name)
        is_broken = bare_suffix(path) in CERTAIN and path.stat().st_size > 0
        if named or is_broken or is_run_folder(path.parent):
            return [skipped]
        if on_skipped is not None:
            on_skipped(skipped)
        return []
    except StructureError as error:
        return [FailedStructure(str(path), str(error), name=path.name)]


def read_files(paths: Iterable[str | Path]) -> list[Atoms]:
    """The structures behind files and folders; the first that cannot be read is an error.

    Args:
        paths: Files and folders, see `load_structures`.

    Returns:
        Structures, moments (if the files have any) as vectors in ``initial_magmoms``.

    Raises:
        StructureError: If a file or a structure in it cannot be read, or there is none.
    """
    paths = list(paths)
    found = []
    for item in load_structures(paths):
        if isinstance(item, FailedStructure):
            raise StructureError(item.message)
        for note in item.notes:
            _log.info("%s: %s", item.name, note)
        found.append(item.atoms)
    if not found:
        raise StructureError(f"no structures in {', '.join(map(str, paths))}.")
    return found


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

    All formats of `mmace_sim.io`, compressed or not. Moments in mCIF are expanded by the magnetic symmetry, moments of
    pymatgen JSON are taken from the site property ``magmom`` or the spin of the species. Elsewhere they are looked for
    as `mmace_sim.graph.atoms.file_magmoms` says: what was computed goes before an initial guess. Scalars become vectors
    along z.

    Returns:
        The structures, in the order of the file.

    Raises:
        StructureError: If the file or a structure in it cannot be read, or there is none; the message names the file.
    """
    items = _read(Path(path))
    for item in items:
        if isinstance(item, FailedStructure):
            raise StructureError(item.message)
    return [item for item in items if isinstance(item, LoadedStructure)]


def _read(path: Path, bounds: Sequence[int] = ()) -> list[LoadedStructure | FailedStructure]:
    """Structures of a file, and those in it that cannot be used."""
    _check_file(path)
    found: list[tuple[Atoms, list[str]] | StructureError] = []
    try:
        found.extend(read_atoms(path, bounds))  # keeps what came before an error
    except StructureError as error:
        if not found:
            raise type(error)(f"{path}: {error}") from error
        found.append(error)
    if not found:
        raise NotAStructureError(f"{path}: holds no structure.")
    items: list[LoadedStructure | FailedStructure] = []
    for index, item in enumerate(found):
        name = f"{path.name}#{index}" if len(found) > 1 else path.name
        if isinstance(item, StructureError):
            items.append(FailedStructure(str(path), f"{path}: {item}", index, name))
        else:
            items.append(LoadedStructure(str(path), index, name, item[0], item[1]))
    return items


def _check_file(path: Path) -> None:
    if not path.exists():
        raise StructureError(f"{path}: no such file or folder. Check the path.")
    try:
        check_regular(path)
    except StructureError as error:
        raise type(error)(f"{path}: {error}") from error
    if not os.access(path, os.R_OK):
        raise StructureError(f"{path}: not readable. Check its permissions.")

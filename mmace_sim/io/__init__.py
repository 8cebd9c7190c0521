"""The only readers of structures and labels: the command line, Python, training and evaluation all come here.

Every format gives `ase.Atoms` with what was computed in ``atoms.calc``, one structure after the other. `read_atoms`
puts the moments where everything else looks for them; `read_labelled` puts labels under the names of `LabelKeys` for
training. Both take the same moments, constraints and cell from the same file.

A file is data and nothing else: no reader imports, builds or runs what a file names, and none allocates more than the
size of the file explains. Formats that are scripts or pickles are not read (`mmace_sim.io.ase_files.FORMATS`).
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import DataError, MissingExtraError, NotAStructureError, StructureError
from mmace_sim.graph.atoms import (
    INITIAL_MAGMOMS,
    MAGMOM_ARRAYS,
    check_atomic_numbers,
    file_magmoms,
    has_magmoms,
    set_magmoms,
    widen_collinear,
)
from mmace_sim.io import (
    abacus,
    abinit,
    ase_files,
    ase_json,
    castep,
    cif,
    database,
    deepmd,
    espresso,
    mlip,
    parquet,
    res,
    ulm,
    vasp,
    xyz,
)
from mmace_sim.io.base import (
    Format,
    Item,
    put_labels,
    results_as_labels,
    take_remarks,
)
from mmace_sim.io.opening import check_regular

FORMATS: tuple[Format, ...] = (
    deepmd.FORMAT,
    database.FORMAT,
    parquet.FORMAT,
    mlip.FORMAT,
    vasp.FORMAT,
    abinit.FORMAT,
    espresso.FORMAT,
    abacus.FORMAT,
    xyz.FORMAT,
    ase_json.FORMAT,
    ulm.FORMAT,
    cif.FORMAT,
    castep.FORMAT,
    res.FORMAT,
    ase_files.FORMAT,
)
"""Formats in the order in which they are tried; the last takes everything."""

_MOMENTS = re.compile(
    r"magmom|mag(netic)?_?moments?|(^|_)(spins?|moments?|magneti[sz]ation)(_|$)", re.IGNORECASE
)
"""Names of what may be moments."""


def format_of(path: Path) -> Format:
    """The format of a file or folder.

    Args:
        path: File or folder.

    Raises:
        DataError: If it does not exist, or is a pipe, socket or device.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    try:
        check_regular(path)
    except StructureError as error:
        raise DataError(f"{path}: {error}") from error
    return next(known for known in FORMATS if known.matches(path))


def read_labelled(path: Path, keys: LabelKeys) -> Iterator[Item]:
    """Read the labelled structures of a file one after the other.

    Args:
        path: File or folder.
        keys: Names of the labels.

    Yields:
        Structures with labels under the given names, and a `StructureError` in place of each unusable one.

    Raises:
        DataError: If the file does not exist, cannot be parsed or holds no structure.
    """
    known = format_of(path)
    count = 0
    try:
        for item in _read(known, path, keys):
            count += 1
            yield labelled(item, known, keys)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except MissingExtraError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # readers of other packages raise whatever they like
        reason = str(error) if isinstance(error, StructureError) else f"{type(error).__name__}: {error}"
        raise DataError(
            f"{path}: cannot be read as {known.name} ({reason}); structures read: {count}"
        ) from error
    if not count:
        raise DataError(f"{path}: holds no structure")


def find_bounds(path: Path) -> Iterator[tuple[int, int]] | None:
    """Where the structures of a file begin and end, without reading them.

    Yields:
        Bounds, one more than there are structures, and how many atoms lie between each and the one before (0: nobody
        knows); None in place of them for a file that must be read to know how many structures it holds.
    """
    try:
        return format_of(path).bounds(path)
    except Exception:  # libraries raise whatever they like; reading it tells what is wrong
        return None


def read_atoms(path: Path, bounds: Sequence[int] = ()) -> Iterator[tuple[Atoms, list[str]] | StructureError]:
    """Read the structures of a file one after the other, with their moments.

    Args:
        path: The file.
        bounds: Read only the structures between these, of `find_bounds`.

    Yields:
        Structures without calculator and notes for the user, and a `StructureError` in place of each unusable one.
        Moments (if the file has any) are vectors in ``initial_magmoms``, see
        `mmace_sim.graph.atoms.file_magmoms`.

    Raises:
        NotAStructureError: If the file is none that holds structures.
        StructureError: If it cannot be read.
    """
    keys = LabelKeys()
    try:
        for item in _read(format_of(path), path, keys, bounds):
            yield item if isinstance(item, StructureError) else _settled(item, keys)
    except StructureError:
        raise
    except (DataError, MissingExtraError) as error:
        raise StructureError(str(error)) from error
    except Exception as error:  # readers of other packages raise whatever they like
        reason = str(error).strip() or type(error).__name__
        raise StructureError(
            f"cannot be read ({reason}). Check that it is complete and in a format that ASE reads "
            "(CIF, mCIF, POSCAR, extxyz, JSON, ...) with the usual ending."
        ) from error


def _read(known: Format, path: Path, keys: LabelKeys, bounds: Sequence[int] = ()) -> Iterator[Item]:
    """The structures of a file, each of them checked for what no reader of another package checks."""
    if path.is_file() and path.stat().st_size == 0:
        raise NotAStructureError("the file is empty. Write it again, or remove it.")
    between = known.read_between
    items = known.read(path, keys) if between is None or not bounds else between(path, bounds, keys)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other packages, about their own formats
            item = next(items, None)
        if item is None:
            return
        try:
            if not isinstance(item, StructureError):
                check_atomic_numbers(item.numbers)
            yield item
        except StructureError as error:
            yield error


def labelled(item: Item, known: Format, keys: LabelKeys) -> Item:
    """Put what was computed for a structure under the names of the labels.

    Args:
        item: What a reader gave.
        known: Its format.
        keys: Names of the labels.

    Returns:
        The structure, or why it cannot be used.
    """
    if isinstance(item, StructureError):
        return item
    try:
        unusable = take_remarks(item).unusable
        item.info.update({key: unusable[key] for _, key in keys if key in unusable})
        results = getattr(item.calc, "results", None) or {}
        labels = results_as_labels(item)
        if not known.results_are_labels:
            labels = {label: results[key] for label, key in keys if key in results and label != "config_type"}
        put_labels(item, keys, labels)
        if known.without_moments and keys.magmoms not in item.arrays and not has_magmoms(item):
            return StructureError(known.without_moments)
    except StructureError as error:
        return error
    return item


def _settled(atoms: Atoms, keys: LabelKeys) -> tuple[Atoms, list[str]] | StructureError:
    """A structure with its moments in place, without what belongs to the file format."""
    try:
        left = take_remarks(atoms)
        if left.problem is not None:
            return left.problem
        magmoms, note = file_magmoms(atoms, keys.magmoms)
        if magmoms is not None:
            set_magmoms(atoms, magmoms)
            read = {keys.magmoms, INITIAL_MAGMOMS}
            found = left.unread | {k: v for k, v in atoms.arrays.items() if k not in read}
            note = note or _unread_moments(found, magmoms)
        else:
            note = _unread_moments(left.unread | atoms.info | atoms.arrays)
    except StructureError as error:
        return error
    for name in set(MAGMOM_ARRAYS) - {keys.magmoms}:
        atoms.arrays.pop(name, None)
    atoms.calc = None
    return atoms, left.notes + ([note] if note else [])


def _unread_moments(found: Mapping[str, Any], taken: np.ndarray | None = None) -> str:
    """A sentence on what looks like moments under a name that is not read, "" if there is nothing.

    Args:
        found: Info and columns of a structure.
        taken: Moments of the structure, shape (n_atoms, 3); what says the same is no matter.
    """
    values = {key: _numbers(value) for key, value in found.items() if _MOMENTS.search(str(key))}
    named = {str(key): value for key, value in values.items() if value.dtype.kind in "iuf"}
    if taken is not None:
        n = len(taken)
        vectors = {k: widen_collinear(v) for k, v in named.items() if v.shape in ((n,), (n, 3))}
        others = [k for k, v in vectors.items() if not np.allclose(v, taken, atol=1e-6)]
        return (
            f"{', '.join(others)} in the file says something else than the moments that were read"
            if others
            else ""
        )
    n = len(found["numbers"])
    names = [key for key, value in named.items() if value.shape in ((n,), (n, 3), (3 * n,))]
    if not names:
        return ""
    return (
        f"{', '.join(names)} in the file is not read as moments: name the column initial_magmoms (a guess) or magmoms "
        "(computed), one number or three for each atom"
    )


def _numbers(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:  # rows of different lengths
        return np.asarray(None)


def expand_folders(paths: Sequence[Path]) -> list[Path]:
    """Files behind folders of LMDB databases, as large public sets come; everything else as it is.

    Args:
        paths: Files and folders.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.iterdir() if database.is_database(p)) if path.is_dir() else []
        found += inside or [path]
    return found

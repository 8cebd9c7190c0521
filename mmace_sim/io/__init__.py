"""Files with labelled structures, in the formats of several codes, read one structure after the other.

Every reader gives `ase.Atoms` whose labels lie under the names of `LabelKeys`; `read_frames` does the rest.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmace_sim.errors import DataError
from mmace_sim.io import abinit, ase_files, database, deepmd, mlip, vasp
from mmace_sim.io.base import Format, Item
from mmace_sim.io.labels import LabelKeys

FORMATS: tuple[Format, ...] = (
    deepmd.FORMAT,
    database.FORMAT,
    mlip.FORMAT,
    vasp.FORMAT,
    abinit.FORMAT,
    ase_files.EXTXYZ,
    ase_files.OTHER,
)
"""Formats in the order in which they are tried; the last takes everything."""


def format_of(path: Path) -> Format:
    """The format of a file or folder.

    Args:
        path: File or folder.

    Raises:
        DataError: If it does not exist.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return next(known for known in FORMATS if known.matches(path))


def read_structures(path: Path, keys: LabelKeys) -> Iterator[Item]:
    """Read the structures of a file one after the other.

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
        for item in known.read(path, keys):
            count += 1
            yield item
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # readers of other packages raise whatever they like
        raise DataError(
            f"{path}: cannot be read as {known.name} ({type(error).__name__}: {error}); structures read: {count}"
        ) from error
    if not count:
        raise DataError(f"{path}: holds no structure")


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

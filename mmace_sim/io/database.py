"""ASE databases: LMDB (``.aselmdb``, ``.lmdb``), fast enough to train from, and SQLite (``.db``).

Both hold energy, forces, stress and moments as calculator results and everything else in ``data``, as `ase.db` has it;
the LMDB file is that of ``ase-db-backends`` and fairchem: key = row number, value = JSON compressed by zlib. Nothing is
unpickled, SQLite files are opened for reading only, and rows are plain data (`mmace_sim.io.rows`).
"""

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from mmace_sim.base.extras import require
from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import DataError, MissingExtraError, StructureError
from mmace_sim.io.base import Format, Item, structure_or_reason
from mmace_sim.io.lmdb_file import LmdbFile
from mmace_sim.io.opening import (
    ALWAYS_ALLOWED,
    MAX_RATIO,
    bare_suffix,
    check_regular,
    is_compressed,
    plain_file,
)
from mmace_sim.io.plain_json import plain_values
from mmace_sim.io.rows import row_to_atoms
from mmace_sim.io.sqlite import SqliteRows

LMDB_ENDINGS: tuple[str, ...] = (".aselmdb", ".lmdb")

_MAP_SIZE = 2**40  # address space only: the file grows as it is filled

_WRITE_EVERY = 2000

_MAX_SPARSENESS = 1000
"""Largest number of the last row relative to the number of rows: rows can be deleted."""


_HEAD = 4096
"""Bytes of a row, unpacked, in which its atoms are looked for."""

_NUMBERS = re.compile(rb'"numbers":(?:\{"__ndarray__":\[\[(\d+)\]|\[([\d,]+)\])')
"""Atomic numbers in the JSON of a row: an array, of which the first number is the length, or a list."""


class LmdbRows:
    """Rows of an LMDB file as dictionaries."""

    def __init__(self, path: Path) -> None:
        self.path = path
        require("databases", "An LMDB database")
        self._file = LmdbFile(path)
        size = self._value(b"nextid")
        if size is None:
            raise DataError(
                "is no ASE database in LMDB (no nextid); only those are read, as nothing is unpickled"
            )
        if not isinstance(size, int) or size > _MAX_SPARSENESS * (self._file.entries + 1):
            raise DataError(f"announces {size} rows, but holds {self._file.entries} entries")
        deleted = self._value(b"deleted_ids") or []
        if not isinstance(deleted, list) or not all(isinstance(number, int) for number in deleted):
            raise DataError("names deleted rows by something else than their numbers")
        gone = np.array([number for number in deleted if 0 < number < size], dtype=int)
        self.ids = np.setdiff1d(np.arange(1, size), gone)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> dict[str, Any]:
        row = self._value(str(self.ids[position]).encode())
        if row is None:
            raise StructureError("the row is missing from the database")
        return plain_values(row)

    def sizes(self) -> Iterator[int]:
        """Atoms of each row, 0 if it is damaged."""
        return (self._size(str(number).encode()) for number in self.ids)

    def _size(self, key: bytes) -> int:
        """Atoms of a row: its first bytes tell, as ASE writes them; of other files the whole row is read."""
        try:
            packed = self._file.get(key)
            if packed is None:
                return 0
            head = zlib.decompressobj().decompress(packed, _HEAD)
            found = _NUMBERS.search(head)
            if found is not None and _depth(head[: found.start()]) == 1:
                length, listed = found.groups()
                return listed.count(b",") + 1 if length is None else int(length)
            return len(plain_values(self._value(key))["numbers"])
        except Exception:  # whatever is wrong with the row, who reads it tells
            return 0

    def _value(self, key: bytes) -> Any:
        import orjson

        packed = self._file.get(key)
        try:
            return None if packed is None else orjson.loads(_decompressed(packed))
        except (zlib.error, orjson.JSONDecodeError) as error:
            raise DataError("is no ASE database in LMDB (values are not compressed JSON)") from error


Rows = LmdbRows | SqliteRows


def is_database(path: Path) -> bool:
    """Whether a file is a database that gives any structure without reading those before it."""
    return path.is_file() and path.suffix.lower() in (*LMDB_ENDINGS, ".db")


def open_rows(path: Path) -> Rows:
    """Open a database.

    Raises:
        DataError: If it is not one.
    """
    try:
        check_regular(path)
        return _rows(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except MissingExtraError:
        raise
    except Exception as error:  # of lmdb and sqlite3
        raise DataError(f"{path}: cannot be opened as a database ({error})") from error


def _read(path: Path, keys: LabelKeys) -> Iterator[Item]:
    with plain_file(path) as plain:
        rows = _rows(plain)
        yield from _read_rows(rows, range(len(rows)), keys)


def _rows(path: Path) -> Rows:
    return LmdbRows(path) if path.suffix.lower() in LMDB_ENDINGS else SqliteRows(path)


def _read_rows(rows: Rows, positions: Iterable[int], keys: LabelKeys) -> Iterator[Item]:
    for position in positions:
        read = partial(lambda place: row_to_atoms(rows[place], keys), position)
        yield structure_or_reason(read, f"row {rows.ids[position]}")


def _bounds(path: Path) -> Iterator[tuple[int, int]] | None:
    """Numbers of rows, and atoms of each."""
    return None if is_compressed(path) else enumerate(chain((0,), _rows(path).sizes()))


def _read_between(path: Path, bounds: Sequence[int], keys: LabelKeys) -> Iterator[Item]:
    return _read_rows(_rows(path), bounds[:-1], keys)


class LmdbWriter:
    """Writes structures to an LMDB file that `ase-db-backends` can read too; use it in a `with` block.

    Args:
        path: New file.
    """

    def __init__(self, path: Path) -> None:
        require("databases", "An LMDB database")
        import lmdb

        self._env = lmdb.open(str(path), subdir=False, map_size=_MAP_SIZE, meminit=False, map_async=True)
        self._transaction = self._env.begin(write=True)
        self._next = 1

    def __enter__(self) -> "LmdbWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._transaction.abort()
        self._env.sync(True)
        self._env.close()

    def write(self, row: dict[str, Any]) -> int:
        """Add a row.

        Args:
            row: Numbers, positions, cell, pbc, calculator results, and `data`.

        Returns:
            Its number, from 1.
        """
        import orjson

        packed = zlib.compress(orjson.dumps({key: _packed(value) for key, value in row.items()}))
        self._transaction.put(str(self._next).encode(), packed)
        self._next += 1
        if self._next % _WRITE_EVERY == 0:
            self._flush()
        return self._next - 1

    def _flush(self) -> None:
        import orjson

        self._transaction.put(b"nextid", zlib.compress(orjson.dumps(self._next)))
        self._transaction.commit()
        self._transaction = self._env.begin(write=True)


def write_database(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write a database: LMDB, or SQLite if the name ends in ``.db``.

    Args:
        path: New file.
        rows: Rows as `atoms_to_row` makes them.

    Returns:
        Number of rows.
    """
    count = 0
    if path.suffix.lower() in LMDB_ENDINGS:
        with LmdbWriter(path) as writer:
            for row in rows:
                count = writer.write(row)
        return count
    from ase.db import connect
    from ase.db.row import AtomsRow

    with connect(path) as database:
        for row in rows:
            count = database.write(AtomsRow(row), data=row["data"])
    return count


def atoms_to_row(
    atoms: Atoms, magmoms: np.ndarray, labels: dict[str, np.ndarray], info: dict[str, Any]
) -> dict[str, Any]:
    """A row of a database.

    Args:
        atoms: Structure.
        magmoms: Moments, in μB.
        labels: Labels: `energy`, `forces`, `stress` (3, 3), `magforces`.
        info: What else is known, such as config_type and group.
    """
    row = {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        "unique_id": os.urandom(16).hex(),
        "ctime": 0.0,
        "mtime": 0.0,
        "user": None,
        "calculator": "unknown",
        "calculator_parameters": {},
        "magmoms": magmoms,
        "data": {"info": info},
    }
    if "energy" in labels:
        row["energy"] = float(labels["energy"])
    if "forces" in labels:
        row["forces"] = labels["forces"]
    if "stress" in labels:
        row["stress"] = full_3x3_to_voigt_6_stress(labels["stress"])
    if "magforces" in labels:
        row["data"]["magforces"] = labels["magforces"]
    return row


def _packed(value: object) -> Any:
    """A value for JSON, arrays as ASE writes them."""
    if isinstance(value, np.ndarray):
        return {"__ndarray__": [list(value.shape), value.dtype.name, value.ravel().tolist()]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(key): _packed(item) for key, item in value.items()}
    return [_packed(item) for item in value] if isinstance(value, list | tuple) else value


def _depth(json: bytes) -> int:
    """How many dictionaries are open where a piece of JSON ends."""
    return json.count(b"{") - json.count(b"}")


def _decompressed(packed: bytes) -> bytes:
    """Unpack a value, unless it is a decompression bomb."""
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(packed, max(ALWAYS_ALLOWED, MAX_RATIO * len(packed)))
    if unpacker.unconsumed_tail:
        raise DataError(f"holds a row that is more than {MAX_RATIO} times as large as its compressed form")
    return data


def _matches(path: Path) -> bool:
    return path.is_file() and bare_suffix(path) in (*LMDB_ENDINGS, ".db")


FORMAT = Format("an ASE database", _matches, _read, bounds=_bounds, read_between=_read_between)

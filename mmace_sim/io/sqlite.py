"""Rows of ASE's SQLite databases, opened for reading only and read as plain data."""

import math
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.io.plain_json import checked_dtype, parse_ase_json, parse_json

_SQLITE_MAGIC = b"SQLite format 3\0"

_NUMBERS = ("energy", "free_energy", "magmom")

_BLOBS: dict[str, str] = {
    "numbers": "<i4", "tags": "<i4",
    **dict.fromkeys(("positions", "cell", "initial_magmoms", "initial_charges", "masses", "momenta", "forces",
                     "stress", "dipole", "magmoms", "charges"), "<f8"),
}  # fmt: skip
"""Types of the arrays in a SQLite database."""


class SqliteRows:
    """Rows of a SQLite database of ASE as dictionaries, opened anew in every process that reads.

    Raises:
        DataError: If it has no table of structures.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            if file.read(len(_SQLITE_MAGIC)) != _SQLITE_MAGIC:
                raise NotAStructureError("cannot be read: it is no SQLite database.")
        self.path = path
        self._database: sqlite3.Connection | None = None
        self._pid = -1
        tables = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'systems'"
        if self._open().execute(tables).fetchone()[0] != 1:
            raise NotAStructureError(
                "cannot be read: it is no database of ASE, it has no table of structures."
            )
        self.ids = np.array([row[0] for row in self._open().execute("SELECT id FROM systems ORDER BY id")])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> dict[str, Any]:
        cursor = self._open().execute("SELECT * FROM systems WHERE id = ?", (int(self.ids[position]),))
        values = cursor.fetchone()
        if values is None:
            raise StructureError("the row is missing from the database")
        stored = dict(zip((column[0] for column in cursor.description), values, strict=True))
        row: dict[str, Any] = {name: stored[name] for name in _NUMBERS if isinstance(stored.get(name), float)}
        for name, kind in _BLOBS.items():
            if isinstance(stored.get(name), bytes):
                row[name] = _from_blob(stored[name], kind, name)
        if isinstance(stored.get("pbc"), int):
            row["pbc"] = [bool(stored["pbc"] & bit) for bit in (1, 2, 4)]
        if "cell" in row:
            row["cell"] = row["cell"].reshape(-1, 3)
        row["constraints"] = stored.get("constraints")
        row["key_value_pairs"] = _parsed(stored.get("key_value_pairs"))
        row["data"] = _parsed(stored.get("data"))
        return row

    def sizes(self) -> Iterator[int]:
        """Atoms of each row.

        By the length of the array of their numbers, which SQLite knows from the head of a row. ``natoms`` stands behind
        all that was computed, which would have to be read, and older databases have no such column.
        """
        query = "SELECT ifnull(length(numbers), 0) / 4 FROM systems ORDER BY id"
        return iter(np.array([row[0] for row in self._open().execute(query)], dtype=int).tolist())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_database": None, "_pid": -1}

    def _open(self) -> sqlite3.Connection:
        if self._database is None or self._pid != os.getpid():
            self._database = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, timeout=20)
            self._database.execute("PRAGMA trusted_schema = OFF")
            self._pid = os.getpid()
        return self._database


def _from_blob(blob: bytes, kind: str, name: str) -> np.ndarray:
    try:
        return np.frombuffer(blob, dtype=kind)
    except ValueError as error:
        raise StructureError(f"{name} of the row are damaged ({error})") from error


def _parsed(value: object) -> dict[str, Any]:
    """A dictionary that the database holds as JSON, or in ASE's binary form: arrays, then JSON with their offsets."""
    if isinstance(value, str):
        found = parse_ase_json(value)
    elif isinstance(value, bytes) and len(value) >= 8:
        offset = int.from_bytes(value[:8], "little")
        found = _with_arrays(parse_json(value[offset:].decode("utf-8", "replace")), value)
    else:
        found = None
    return found if isinstance(found, dict) else {}


def _with_arrays(value: object, blob: bytes) -> Any:
    """Parsed JSON with the arrays whose bytes lie in a blob."""
    if isinstance(value, list):
        return [_with_arrays(item, blob) for item in value]
    if not isinstance(value, dict):
        return value
    if "__ndarray__" not in value:
        return {key: _with_arrays(item, blob) for key, item in value.items()}
    shape, name, offset = value["__ndarray__"]
    kind = checked_dtype(name)
    data = blob[int(offset) : int(offset) + math.prod(int(size) for size in shape) * kind.itemsize]
    try:
        return np.frombuffer(data, dtype=kind).reshape(shape)
    except ValueError as error:
        raise StructureError(f"an array of the row is damaged ({error})") from error

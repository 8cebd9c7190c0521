"""ASE's trajectories (``.traj``), read as plain data.

A file is a header, a list of offsets, and for each frame a JSON dictionary whose arrays lie elsewhere in the file,
given by shape, type and offset. Everything announced is compared with the size of the file before it is read.
"""

import math
import struct
from collections.abc import Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.io.base import Format, Item, structure_or_reason
from mmace_sim.io.opening import bare_suffix, plain_file
from mmace_sim.io.plain_json import checked_dtype, parse_ase_json
from mmace_sim.io.rows import atoms_of_row

_MAGIC = (b"- of Ulm", b"AFFormat")

_TAG = b"ASE-Trajectory"

_HEADER = ("numbers", "pbc", "masses", "constraints")


class _File:
    """An open file that refuses to be read beyond its end."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self.file, self.size = file, size

    def read(self, offset: int, count: int) -> bytes:
        if offset < 0 or count < 0 or offset + count > self.size:
            raise StructureError(
                "cannot be read: the trajectory announces more than the file holds; it is cut off or damaged."
            )
        self.file.seek(offset)
        return self.file.read(count)

    def integers(self, offset: int, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}q", self.read(offset, 8 * count))

    def item(self, offset: int) -> dict[str, Any]:
        """One frame with its arrays."""
        (length,) = self.integers(offset, 1)
        data = parse_ase_json(self.read(offset + 8, length).decode("utf-8", "replace"))
        return self._filled(data, "<" if data.get("_little_endian", True) else ">")

    def _filled(self, data: dict[str, Any], order: str) -> dict[str, Any]:
        filled = {}
        for name, value in data.items():
            if not name.endswith("."):
                filled[name] = value
            elif "ndarray" in value:
                filled[name[:-1]] = self._array(*value["ndarray"], order)
            else:
                filled[name[:-1]] = self._filled(value, order)
        return filled

    def _array(self, shape: list[int], name: str, offset: int, order: str) -> np.ndarray:
        kind = checked_dtype(name)
        if kind.kind == "U":
            raise StructureError("the trajectory holds an array of text, which cannot be read.")
        kind, shape = kind.newbyteorder(order), [int(size) for size in shape]
        data = self.read(int(offset), math.prod(shape) * kind.itemsize)
        return np.frombuffer(data, dtype=kind).reshape(shape).astype(kind.newbyteorder("="))


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    with plain_file(path) as plain, plain.open("rb") as opened:
        file = _File(opened, plain.stat().st_size)
        if file.size < 48 or file.read(0, 8) not in _MAGIC or file.read(8, 16).rstrip() != _TAG:
            raise NotAStructureError("cannot be read: it is no trajectory of ASE.")
        _, n_items, first = file.integers(24, 3)
        header: dict[str, Any] = {}
        for number, offset in enumerate(file.integers(first, n_items)):
            item = file.item(offset)
            header = {key: item.get(key) for key in _HEADER} if "numbers" in item else header
            yield structure_or_reason(partial(_atoms, header | item), f"image {number}")


def _atoms(item: dict[str, Any]) -> Any:
    results = item.get("calculator") or {}
    row = {key: value for key, value in results.items() if key not in item} | item
    row |= {"initial_magmoms": item.get("magmoms"), "magmoms": results.get("magmoms")}
    row |= {"initial_charges": item.get("charges"), "charges": results.get("charges")}
    atoms = atoms_of_row(row)
    if isinstance(item.get("info"), dict):
        atoms.info.update(item["info"])
    return atoms


FORMAT = Format("a trajectory of ASE", lambda path: bare_suffix(path) == ".traj", _read)

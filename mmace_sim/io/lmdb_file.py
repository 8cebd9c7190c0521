"""Values of an LMDB file by their keys, from the bytes of the file.

The library LMDB trusts what a file says: a page that points beyond its end, or a length that is damaged, ends the
process. Here every position is compared with the size of the file before anything is read. Format: the structures
``MDB_meta``, ``MDB_page`` and ``MDB_node`` of version 0.9 (``mdb.c``), which is also what ``lmdb`` writes.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

from mmace_sim.errors import DataError

_MAGIC = (0xBEEFC0DE, 1)

_HEADER = struct.Struct("<QHHHH")  # page number, padding, flags, end of the pointers, begin of the nodes

_META = struct.Struct("<II16xI48xHH7Q")
"""Magic, version; size of a page; flags, depth, pages of three kinds, entries and root; last page, transaction."""

_NODE = struct.Struct("<HHHH")  # size of the value or number of the page (low, high), flags, size of the key

_DEEPEST = 32

_BRANCH, _LEAF = 1, 2

_APART = 1
"""Flag of a value that lies on pages of its own."""


class LmdbFile:
    """A file opened for reading.

    Attributes:
        entries: Number of values.

    Raises:
        DataError: If it is no LMDB file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.stat().st_size:
            raise DataError("is empty. Get it again.")
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._page_size = 0
        first = self._meta(0)
        self._page_size = first[2]
        if self._page_size not in {2**k for k in range(8, 17)}:
            raise self._damaged("its pages have no size")
        newest = max(first, self._meta(self._page_size), key=lambda meta: meta[-1])
        flags, self.entries, self._root, last = newest[3], *newest[8:11]
        if flags:
            raise DataError("is no ASE database in LMDB: its keys are no texts.")
        needed = (last + 1) * self._page_size
        if len(self._data) < needed:
            raise DataError(f"is cut off: it has {len(self._data)} of {needed} bytes. Get it again.")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None if there is none.

        Raises:
            DataError: If the file is damaged where the key should be.
        """
        if self._root == 2**64 - 1:
            return None
        number = self._root
        for _ in range(_DEEPEST):
            start, flags, nodes = self._page(number)
            low, high = (1 if flags == _BRANCH else 0), len(nodes)  # the first key of a branch is any
            while low < high:
                middle = (low + high) // 2
                if self._key(start + nodes[middle]) <= key:
                    low = middle + 1
                else:
                    high = middle
            if flags == _LEAF:
                found = low > 0 and self._key(start + nodes[low - 1]) == key
                return self._value(start + nodes[low - 1]) if found else None
            part = _NODE.unpack_from(self._data, start + nodes[low - 1])
            number = part[0] | part[1] << 16 | part[2] << 32
        raise self._damaged("its pages lead in circles")

    def _meta(self, start: int) -> tuple[int, ...]:
        if len(self._data) < start + _HEADER.size + _META.size:
            raise DataError("is cut off: it has not even its first two pages. Get it again.")
        meta = _META.unpack_from(self._data, start + _HEADER.size)
        if meta[:2] != _MAGIC:
            raise self._damaged("a first page is none") if start else DataError("is no LMDB file.")
        return meta

    def _page(self, number: int) -> tuple[int, int, tuple[int, ...]]:
        """Where a page begins, its kind, and where its nodes are from there."""
        start = number * self._page_size
        if number < 2 or start + self._page_size > len(self._data):
            raise self._damaged(f"there is no page {number}")
        itself, _, flags, lower, _ = _HEADER.unpack_from(self._data, start)
        n_nodes = (lower - _HEADER.size) // 2
        least = 2 if flags == _BRANCH else 1
        if itself != number or flags not in (_BRANCH, _LEAF) or lower > self._page_size or n_nodes < least:
            raise self._damaged(f"page {number} is none")
        nodes = struct.unpack_from(f"<{n_nodes}H", self._data, start + _HEADER.size)
        if max(nodes) + _NODE.size > self._page_size:
            raise self._damaged(f"page {number} points beyond its end")
        return start, flags, nodes

    def _key(self, node: int) -> bytes:
        size = _NODE.unpack_from(self._data, node)[3]
        return self._data[node + _NODE.size : node + _NODE.size + size]

    def _value(self, node: int) -> bytes:
        low, high, flags, key_size = _NODE.unpack_from(self._data, node)
        begin, size = node + _NODE.size + key_size, low | high << 16
        if flags == _APART and begin + 8 <= len(self._data):
            (number,) = struct.unpack_from("<Q", self._data, begin)
            begin = number * self._page_size + _HEADER.size
            if begin < len(self._data) and _HEADER.unpack_from(self._data, begin - _HEADER.size)[0] != number:
                raise self._damaged(f"page {number} is none")
        elif flags:
            raise self._damaged("a value is of another kind")
        if begin + size > len(self._data):
            raise self._damaged("a value lies beyond its end")
        return self._data[begin : begin + size]

    def _damaged(self, how: str) -> DataError:
        return DataError(f"is damaged: {how}. Get it again.")

"""Files opened for reading: compressed like plain ones, in any encoding, and never more than their size explains.

A file whose name ends in ``.gz``, ``.bz2`` or ``.xz`` is unpacked on the fly. What comes out may be at most
`MAX_RATIO` times the size of the file (and at least `ALWAYS_ALLOWED` bytes): more is a decompression bomb.
"""

import bz2
import codecs
import gzip
import io
import lzma
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from mmace_sim.errors import NotAStructureError, StructureError

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""What opens a compressed file, by its ending."""

MAX_RATIO: int = 100
"""Largest size of the content relative to a compressed file; text packs 3 to 30 times."""

ALWAYS_ALLOWED: int = 64 * 2**20
"""Size of the content (bytes) that is never refused."""

MEMORY_SHARE: float = 1 / 16
"""Largest content that is read at once, relative to the memory of the machine: JSON takes ten times its size."""

MAX_LINE: int = 64 * 2**20
"""Longest line of a text (characters)."""

_READS_AT_THE_END = 1000

_BUFFER = 2**16

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def is_compressed(path: PurePath) -> bool:
    """Whether a name ends as those of compressed files do, in any case."""
    return path.suffix.lower() in OPENERS


def bare_name(path: PurePath) -> str:
    """Name of a file without the ending of its compression."""
    return path.name[: -len(path.suffix)] if is_compressed(path) else path.name


def bare_suffix(path: PurePath) -> str:
    """Ending of the name without that of its compression, in lower case: ``.cif`` of ``Fe.cif.gz``."""
    return PurePath(bare_name(path)).suffix.lower()


def check_regular(path: Path) -> None:
    """Refuse what is neither a file nor a folder, without opening it: a pipe or device may block or never end.

    Args:
        path: Anything that exists; links are followed.

    Raises:
        NotAStructureError: If it is a pipe, socket or device.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise NotAStructureError(
            "is no regular file but a pipe, socket or device; it was not opened. Give a file."
        )


class _Content(io.RawIOBase):
    """The content of a file, unpacked and bounded."""

    def __init__(self, path: Path) -> None:
        check_regular(path)
        self.name = str(path)  # readers of ASE look for files beside it
        self._file = OPENERS.get(path.suffix.lower(), open)(path, "rb")
        self._left = max(ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size) if is_compressed(path) else None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: bytearray | memoryview) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise StructureError(
                    f"the content is more than {MAX_RATIO} times as large as the compressed file. If it is what you "
                    "expect, unpack it and give the plain file."
                )
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Text(io.TextIOWrapper):
    """Text that refuses endless lines, and readers who go on and on behind its end, believing a mutilated header."""

    _beyond = 0

    def readline(self, size: int = -1, /) -> str:
        line = super().readline(MAX_LINE + 1 if size < 0 else size)
        if len(line) > MAX_LINE:
            raise StructureError(f"has a line of more than {MAX_LINE} characters; it is no such file.")
        if not line:
            self._beyond += 1
            if self._beyond > _READS_AT_THE_END:
                raise StructureError("the file ends before what its header announces. Get it again.")
        return line


def open_bytes(path: Path) -> io.BufferedReader:
    """Open a file, compressed or not.

    Returns:
        Its content; reading raises `StructureError` if it is a decompression bomb.
    """
    return io.BufferedReader(_Content(path), _BUFFER)


def open_text(path: Path) -> io.TextIOWrapper:
    """Open a file, compressed or not, as text in UTF-8, UTF-16 (with byte order mark) or Latin-1.

    Returns:
        Its text without byte order mark, lines ending in a newline whatever they end in in the file.
    """
    content = open_bytes(path)
    try:
        return _Text(content, encoding=encoding_of(content.peek(_BUFFER)), errors="replace")
    except BaseException:
        content.close()
        raise


def encoding_of(start: bytes) -> str:
    """The encoding of a text: UTF-8, UTF-16 (with byte order mark) or Latin-1.

    Args:
        start: Its first bytes.
    """
    for mark, name in _BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return name
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def read_text(path: Path) -> str:
    """The text of a file, see `open_text`."""
    data = read_bytes(path)
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked.

    Raises:
        StructureError: If it is larger than `MEMORY_SHARE` of the memory of the machine: what is made of it is larger.
    """
    most = int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    content = bytearray()
    with open_bytes(path) as file:
        too_large = not is_compressed(path) and path.stat().st_size > most
        while not too_large and (part := file.read(2**20)):
            content += part
            too_large = len(content) > most
    if too_large:
        raise StructureError(
            f"holds more than {most / 2**30:.1f} GiB, which must be read at once: too much for the memory of this "
            "machine. Split it, or give the structures as extended XYZ or as a database."
        )
    return bytes(content)


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """A file that readers can open by its name: itself, or an unpacked copy of the same name in a private folder."""
    check_regular(path)
    if not is_compressed(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mmace-") as folder:
        plain = Path(folder) / bare_name(path)
        with open_bytes(path) as packed, plain.open("xb") as file:
            shutil.copyfileobj(packed, file)
        yield plain

"""Structures that are known before they are read: which file they are in, and where in it.

A million of them are cut into *volumes* of some thousand atoms, by nothing but the names of files, their sizes, and
where in them structures begin: whoever computes a volume reads it. The cuts depend on the files alone.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mmace_sim.base.text import printable
from mmace_sim.io import find_bounds
from mmace_sim.io.collection import FailedStructure, LoadedStructure, find_structures, load_file

LIMIT: int = 10_000
"""A run of more structures is cut into volumes (`mmace_sim.engine.volumes`). Up to it everything is read first, what
cannot be used is told at once, and results are one ``summary.json`` of some 30 MB."""

MAX_STRUCTURES: int = 2000
"""Structures of a volume, if they are small."""

MAX_ATOMS: int = 16_000
"""Atoms of a volume, if it has more than one structure."""

BYTES_PER_ATOM: int = 60
"""Of a file that nobody has looked into."""


@dataclass
class Span:
    """Structures that stand one after the other in a file.

    Attributes:
        file: The file.
        first: Number of the first one in the file, from 0.
        bounds: Where each begins and the last ends, see `mmace_sim.io.find_bounds`; empty: all structures of a file
            that must be read to know how many there are.
        named: Whether the file was named itself, not found in a folder.
    """

    file: str
    first: int = 0
    bounds: list[int] = field(default_factory=list)
    named: bool = False

    @property
    def n_structures(self) -> int:
        """How many there are; 1 if nobody knows."""
        return max(1, len(self.bounds) - 1)


def find_spans(paths: Iterable[str | Path]) -> Iterator[tuple[Span, int]]:
    """Structures behind files and folders, one by one, with their numbers of atoms, or a guess.

    Args:
        paths: Files and folders, see `mmace_sim.io.collection.find_structures`.

    Yields:
        Spans of one structure (or of one file that must be read), in the order in which all would be read.
    """
    given = [Path(path) for path in paths]
    named = {path for path in given if not path.is_dir()}
    for path in find_structures(given):
        name, bounds = str(path), find_bounds(path)
        if bounds is None:
            yield Span(name, named=path in named), _guessed_atoms(path)
            continue
        before = None
        for number, (at, n_atoms) in enumerate(bounds):
            if before is not None:
                yield Span(name, number - 1, [before, at], path in named), n_atoms
            before = at


def is_large(paths: Iterable[str | Path]) -> bool:
    """Whether there are more than `LIMIT` structures.

    Args:
        paths: Files and folders.
    """
    return next(islice(find_spans(paths), LIMIT, None), None) is not None


def cut(paths: Iterable[str | Path]) -> Iterator[list[Span]]:
    """Structures behind files and folders in volumes.

    Args:
        paths: Files and folders.

    Yields:
        Spans of each volume.
    """
    volume: list[Span] = []
    n_structures = n_atoms = 0
    for span, size in find_spans(paths):
        if volume and (n_structures >= MAX_STRUCTURES or n_atoms + size > MAX_ATOMS):
            yield volume
            volume, n_structures, n_atoms = [], 0, 0
        last = volume[-1] if volume else None
        if last is not None and last.file == span.file and last.bounds and span.bounds:
            last.bounds.append(span.bounds[-1])
        else:
            volume.append(span)
        n_structures, n_atoms = n_structures + 1, n_atoms + size
    if volume:
        yield volume


def read_spans(
    spans: Iterable[Span], on_skipped: Callable[[FailedStructure], None]
) -> list[LoadedStructure | FailedStructure]:
    """Read structures; one that cannot be read does not stop the others.

    Args:
        spans: Which.
        on_skipped: Called with every file that holds none.

    Returns:
        Structures and failures in their order, named by the paths of their files, so that no two of a run are alike.
    """
    items: list[LoadedStructure | FailedStructure] = []
    for span in spans:
        found = load_file(Path(span.file), named=span.named, on_skipped=on_skipped, bounds=span.bounds)
        several = len(found) > 1 or bool(span.bounds)
        for item in found:
            item.index += span.first
            item.name = printable(f"{item.file}#{item.index}" if several else item.file)
        items += found
    return items


def state_of_spans(spans: Iterable[Span]) -> str:
    """A hash of which structures there are: names of files, their sizes, when they were changed, and places in them."""
    digest = hashlib.sha256()
    for span in spans:
        try:
            status = os.stat(span.file)
            known = (status.st_size, status.st_mtime_ns)
        except OSError:
            known = (0, 0)
        digest.update(repr((span.file, known, span.first, span.bounds)).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _guessed_atoms(path: Path) -> int:
    try:
        return max(1, path.stat().st_size // BYTES_PER_ATOM)
    except OSError:
        return 1

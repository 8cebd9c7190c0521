"""Structures that are known before they are read: which file they are in, and where in it.

A million of them are cut into *volumes* of some thousand atoms at most, by nothing but the names of files, their sizes,
where in them structures begin, and how many atoms they have: whoever computes a volume reads it. What structures cost,
and who computes, is a matter of `mmace_sim.engine.cuts`.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count, islice, pairwise
from pathlib import Path

import numpy as np

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
        sizes: Atoms of each, 0 if nobody knows; a guess for a file that must be read.
    """

    file: str
    first: int = 0
    bounds: list[int] = field(default_factory=list)
    named: bool = False
    sizes: list[int] = field(default_factory=list)

    @property
    def n_structures(self) -> int:
        """How many there are; 1 if nobody knows."""
        return max(1, len(self.bounds) - 1)


def find_spans(paths: Iterable[str | Path]) -> Iterator[Span]:
    """Structures behind files and folders, one by one.

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
            yield Span(name, named=path in named, sizes=[_guessed_atoms(path)])
            continue
        before = None
        for number, (at, n_atoms) in enumerate(bounds):
            if before is not None:
                yield Span(name, number - 1, [before, at], path in named, [n_atoms])
            before = at


def is_large(paths: Iterable[str | Path]) -> bool:
    """Whether there are more than `LIMIT` structures.

    Args:
        paths: Files and folders.
    """
    return next(islice(find_spans(paths), LIMIT, None), None) is not None


def cut(paths: Iterable[str | Path]) -> Iterator[list[Span]]:
    """Structures behind files and folders in volumes as large as they may be.

    Args:
        paths: Files and folders.

    Yields:
        Spans of each volume.
    """
    n_structures = n_atoms = 0

    def begins(span: Span) -> bool:
        nonlocal n_structures, n_atoms
        n_structures, n_atoms = n_structures + 1, n_atoms + span.sizes[0]
        if n_structures <= MAX_STRUCTURES and n_atoms <= MAX_ATOMS:
            return False
        n_structures, n_atoms = 1, span.sizes[0]
        return True

    return _joined(find_spans(paths), begins)


def cut_as_before(paths: Iterable[str | Path], numbers: Sequence[int]) -> Iterator[list[Span]]:
    """The same in volumes of given numbers of structures; if there are more, a last volume holds them.

    Args:
        paths: Files and folders.
        numbers: How many structures each volume has.

    Returns:
        Spans of each volume.
    """
    firsts, number = set(accumulate(numbers)), count()
    return _joined(find_spans(paths), lambda _: next(number) in firsts)


def split(volume: Iterable[Span], work: np.ndarray, n_parts: int) -> Iterator[list[Span]]:
    """A volume in parts of about equal work.

    Args:
        volume: Its spans.
        work: Of each structure.
        n_parts: How many parts at most: structures stay whole.

    Returns:
        Spans of each part.
    """
    ends = np.cumsum(work)
    parts = ((ends - work / 2) * n_parts / ends[-1]).astype(int)
    begins = iter(np.diff(parts, prepend=0) > 0)
    return _joined(singles(volume), lambda _: bool(next(begins)))


def singles(spans: Iterable[Span]) -> Iterator[Span]:
    """Spans of one structure each, or of one file that must be read.

    Args:
        spans: Any.
    """
    for span in spans:
        if not span.bounds:
            yield span
        for k, (start, end) in enumerate(pairwise(span.bounds)):
            yield Span(span.file, span.first + k, [start, end], span.named, [span.sizes[k]])


def _joined(spans: Iterable[Span], begins: Callable[[Span], bool]) -> Iterator[list[Span]]:
    """Volumes of spans of one structure each: a new one wherever `begins`, asked once for each span, says so."""
    volume: list[Span] = []
    for span in spans:
        if begins(span) and volume:
            yield volume
            volume = []
        last = volume[-1] if volume else None
        if last is not None and last.file == span.file and last.bounds and span.bounds:
            last.bounds.append(span.bounds[-1])
            last.sizes += span.sizes
        else:
            volume.append(span)
    if volume:
        yield volume


def packed(spans: Iterable[Span]) -> bytes:
    """Spans as a few bytes for each structure."""
    return zlib.compress(json.dumps([list(vars(span).values()) for span in spans]).encode())


def unpacked(spans: bytes) -> list[Span]:
    """What `packed` has packed."""
    return [Span(*values) for values in json.loads(zlib.decompress(spans))]


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


def identity_of(volume: Iterable[Span]) -> str:
    """What the journal says of a volume: how many structures it has, and a hash of which.

    Args:
        volume: Its spans.
    """
    volume = list(volume)
    return f"{sum(span.n_structures for span in volume)} {state_of_spans(volume)}"


def n_structures_of(identity: str) -> int:
    """How many structures a volume has.

    Args:
        identity: From `identity_of`.

    Raises:
        ValueError: If it is that of something else.
    """
    number, _ = identity.split()
    return int(number)


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

"""What one pass over a set of structures tells: a few numbers of each, and what follows for any part of the set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from ase.data import chemical_symbols

from mmace_sim.errors import DataError
from mmace_sim.io.frames import LABELS, Frame, frame_number

_OF_STRUCTURES = ("n_atoms", "labels", "numbers", "config_types", "heads", "forces")
_OF_ELEMENTS = ("elements", "moments")


@dataclass
class FrameSummary:
    """A few numbers of each structure of a set; about 70 bytes and 9 for each of its elements.

    Attributes:
        n_atoms: Number of atoms.
        labels: Bit k is set if the structure has the k-th of `LABELS`.
        numbers: Number in [0, 1) that decides on which side of a split a structure falls.
        config_types: Name of the kind of structure.
        heads: Name of the data set.
        forces: Length of the largest force, in eV/Å; zero without this label.
        first: Where the elements of each structure begin in the next two arrays; one entry more than structures.
        elements: Atomic numbers of the elements of each structure.
        moments: Largest moment of each of these elements in the structure, in μB.
    """

    n_atoms: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    config_types: np.ndarray
    heads: np.ndarray
    forces: np.ndarray
    first: np.ndarray
    elements: np.ndarray
    moments: np.ndarray

    def __len__(self) -> int:
        return len(self.n_atoms)

    def has(self, label: str) -> np.ndarray:
        """Which structures have a label.

        Args:
            label: One of `LABELS`.
        """
        return (self.labels >> LABELS.index(label)) & 1 == 1

    @property
    def owners(self) -> np.ndarray:
        """Number of the structure that each entry of `elements` belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    @property
    def kinds(self) -> dict[str, int]:
        """Number of structures of each config_type, in alphabetical order."""
        names, counts = np.unique(self.config_types, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    @cached_property
    def largest_moments(self) -> dict[int, float]:
        """Largest moment of each element, in μB, rounded up to 0.01."""
        return {
            int(z): float(np.ceil(100.0 * self.moments[self.elements == z].max()) / 100.0)
            for z in np.unique(self.elements)
        }

    def part(self, indices: np.ndarray) -> "FrameSummary":
        """The summary of some of the structures.

        Args:
            indices: Their numbers.
        """
        sizes = np.diff(self.first)[indices]
        first = np.concatenate([[0], np.cumsum(sizes)])
        where = np.repeat(self.first[:-1][indices] - first[:-1], sizes) + np.arange(first[-1])
        chosen = {name: getattr(self, name)[indices] for name in _OF_STRUCTURES}
        chosen |= {name: getattr(self, name)[where] for name in _OF_ELEMENTS}
        return FrameSummary(first=first, **chosen)

    def __add__(self, other: "FrameSummary") -> "FrameSummary":
        names = _OF_STRUCTURES + _OF_ELEMENTS
        joined = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        return FrameSummary(first=np.concatenate([self.first, self.first[-1] + other.first[1:]]), **joined)


class SummaryBuilder:
    """Collects the numbers of a summary, one structure after the other."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, float, int, int, float]] = []
        self._names: dict[str, int] = {}
        self._first = [0]
        self._elements = bytearray()
        self._moments: list[float] = []

    def add(self, frame: Frame) -> None:
        """Add a structure."""
        labels = sum(1 << k for k, label in enumerate(LABELS) if label in frame.labels)
        kind, head = (
            self._names.setdefault(name, len(self._names)) for name in (frame.config_type, frame.head)
        )
        force = float(np.linalg.norm(frame.labels.get("forces", np.zeros((1, 3))), axis=1).max())
        self._rows.append((len(frame.atoms), labels, frame_number(frame.atoms), kind, head, force))
        largest: dict[int, float] = {}
        lengths = np.sqrt((frame.magmoms**2).sum(axis=1)).tolist()
        for z, length in zip(frame.atoms.numbers.tolist(), lengths, strict=True):
            largest[z] = max(largest.get(z, 0.0), length)
        self._elements.extend(largest)
        self._moments.extend(largest.values())
        self._first.append(len(self._elements))

    def result(self) -> FrameSummary:
        """The summary of everything that was added."""
        columns = list(zip(*self._rows, strict=True)) or [()] * 6
        names = np.array(list(self._names) or [""])
        return FrameSummary(
            n_atoms=np.array(columns[0], dtype=np.int32),
            labels=np.array(columns[1], dtype=np.uint8),
            numbers=np.array(columns[2], dtype=float),
            config_types=names[np.array(columns[3], dtype=np.int64)],
            heads=names[np.array(columns[4], dtype=np.int64)],
            forces=np.array(columns[5], dtype=float),
            first=np.array(self._first),
            elements=np.frombuffer(bytes(self._elements), dtype=np.uint8),
            moments=np.array(self._moments, dtype=float),
        )


def summarize(frames: Iterable[Frame]) -> FrameSummary:
    """The summary of a set: the one that it carries, or one made by a pass over it."""
    known = getattr(frames, "summary", None)
    if isinstance(known, FrameSummary):
        return known
    builder = SummaryBuilder()
    for frame in frames:
        builder.add(frame)
    return builder.result()


def elements_of(frames: Sequence[Frame]) -> list[int]:
    """Atomic numbers of all elements, ascending."""
    return [int(z) for z in np.unique(summarize(frames).elements)]


def require_labels(frames: Sequence[Frame], what: str) -> None:
    """Refuse a set without any label.

    Raises:
        DataError: If no structure has an energy, or there is no structure at all.
    """
    if not len(frames):
        raise DataError(f"the {what} set is empty")
    if not summarize(frames).has("energy").any():
        symbols = ", ".join(chemical_symbols[z] for z in elements_of(frames))
        raise DataError(
            f"no structure of the {what} set ({symbols}) has an energy; labels looked for: {', '.join(LABELS)}, under "
            "the names of data.keys (REF_energy, ...; for the names of ASE give energy: energy, and so on)"
        )


def split_frames[Set: Sequence[Frame]](
    frames: Set, valid_fraction: float, test_fraction: float
) -> tuple[Set, Set, Set]:
    """Split by a hash of each frame's identity.

    A structure stays on its side when the set grows, and structures of one `group` stay together.

    Args:
        frames: Structures.
        valid_fraction: Expected part for validation.
        test_fraction: Expected part for the test.

    Returns:
        Training, validation and test structures, each in the order given.
    """
    numbers = summarize(frames).numbers
    limit = test_fraction + valid_fraction
    test, train = numbers < test_fraction, numbers >= limit
    return select(frames, train), select(frames, ~test & ~train), select(frames, test)


def select[Set: Sequence[Frame]](frames: Set, chosen: np.ndarray) -> Set:
    """Some structures of a set, of the same kind: a list, or structures that stay on the disk.

    Args:
        frames: Structures.
        chosen: Which ones: numbers, or True and False.
    """
    indices = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
    part = getattr(frames, "part", None)
    return part(indices) if part else cast("Set", [frames[k] for k in indices.tolist()])


def sample[Set: Sequence[Frame]](frames: Set, limit: int, *, per_element: int = 20, seed: int = 0) -> Set:
    """A random part of a set in which no element is missing; the whole set if it is not larger than `limit`.

    Args:
        frames: Structures.
        limit: Structures to take.
        per_element: Structures of each element that are added if the part has fewer.
        seed: Seed of the choice.
    """
    if len(frames) <= limit:
        return frames
    summary = summarize(frames)
    order = np.random.default_rng(seed).permutation(len(frames))
    chosen = np.zeros(len(frames), dtype=bool)
    chosen[order[:limit]] = True
    place = np.argsort(order)
    owners = summary.owners
    for z in np.unique(summary.elements):
        with_z = owners[summary.elements == z]
        chosen[with_z[np.argsort(place[with_z])][:per_element]] = True
    return select(frames, chosen)

"""How a large run is cut: into volumes of some minutes of work, and enough of them for all who compute.

What a structure costs is estimated as for the pieces of a small run (`mmace_sim.engine.shards`), of a few that are read
from all over the run; the others cost what those of their size do. A run that is resumed is cut as it was, whoever
computes now: its journal says how many structures each volume has.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from mmace_sim.engine.computation import Computation
from mmace_sim.engine.journal import FILE_NAME, read_journal
from mmace_sim.engine.pieces import SECONDS_PER_ATOM
from mmace_sim.engine.run import Run
from mmace_sim.engine.shards import estimated_seconds
from mmace_sim.executors.interface import count_workers
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.spans import (
    MAX_ATOMS,
    Span,
    cut,
    cut_as_before,
    n_structures_of,
    packed,
    read_spans,
    singles,
    split,
    unpacked,
)
from mmace_sim.structures.initial_moments import initial_magmoms

SECONDS: float = 600.0
"""Most work of a volume of several structures, by the estimate for one core."""

LEAST_SECONDS: float = 5.0
"""Work of volumes that are not made smaller so that all workers have some: a folder and its files take a second."""

PER_WORKER: int = 4
"""Volumes of each worker, if the run has work for so many."""

GPU_SPEED: float = 50.0
"""So many cores a GPU counts as: its batches must be full."""

MOST_VOLUMES: int = 50_000
"""Folders that a run should have at most."""

SAMPLE: int = 20
"""Structures that are read to know what all cost."""

_EVALUATIONS: int = 100
"""Of a structure, if none could be read."""


def cut_run(
    computation: Computation[Any, Any], models: Mapping[str, Any], *, resume: bool = False
) -> Iterator[list[Span]]:
    """The structures of a large run in volumes.

    Args:
        computation: What is computed.
        models: Those that are known already, by name.
        resume: Cut as the earlier run in the same folder was.

    Yields:
        Spans of each volume.

    Raises:
        ConfigError: If the executor is none.
        OutputError: If the journal of the earlier run is damaged.
    """
    settings = computation.settings
    numbers = _earlier_numbers(Path(settings.output)) if resume else []
    if numbers:
        yield from cut_as_before(settings.paths, numbers)
        return
    largest = [packed(volume) for volume in cut(settings.paths)]
    costs = _Costs.of_run(computation, models, largest)
    work = [costs.seconds(volume) for volume in largest]
    most = _most_seconds(settings.executor, settings.device, sum(float(seconds.sum()) for seconds in work))
    for volume, seconds in zip(largest, work, strict=True):
        yield from split(unpacked(volume), seconds, math.ceil(seconds.sum() / most))


def _earlier_numbers(folder: Path) -> list[int]:
    """How many structures each volume of an earlier run has; none if it was no run of volumes."""
    records = read_journal(folder / FILE_NAME) if (folder / FILE_NAME).is_file() else []
    try:
        return [n_structures_of(identity) for identity in records[0]["inputs"].values()] if records else []
    except (KeyError, ValueError, AttributeError):  # of something else: opening the folder tells
        return []


def _most_seconds(executor: str | None, device: str | None, total: float) -> float:
    """Most work of a volume, in seconds by the estimate, from that of the whole run."""
    n_workers, with_gpus = count_workers(executor)
    if executor is None and device != "cpu":
        import torch

        with_gpus = torch.cuda.is_available()
    some_minutes = SECONDS * (GPU_SPEED if with_gpus else 1.0)
    return max(min(some_minutes, total / (PER_WORKER * n_workers)), LEAST_SECONDS, total / MOST_VOLUMES)


@dataclass(frozen=True)
class _Costs:
    """What structures cost by their size.

    Attributes:
        sizes: Numbers of atoms, as they are known before a structure is read, in ascending order.
        per_atom: Seconds for each atom of such structures.
    """

    sizes: Sequence[int]
    per_atom: Sequence[float]

    @classmethod
    def of_run(
        cls, computation: Computation[Any, Any], models: Mapping[str, Any], volumes: Sequence[bytes]
    ) -> "_Costs":
        """Read a few structures from all over a run."""
        found: dict[int, list[float]] = {}
        for span in _spread(volumes):
            size = max(1, span.sizes[0])
            with suppress(Exception):  # nothing is checked yet: what is wrong with it, its volume tells
                found.setdefault(size, []).append(_seconds_of(computation, models, span) / size)
        known = {size: float(np.mean(each)) for size, each in sorted(found.items()) if each}
        if not known:
            return cls([1], [_EVALUATIONS * SECONDS_PER_ATOM])
        return cls(list(known), list(known.values()))

    def seconds(self, volume: bytes) -> np.ndarray:
        """Of each structure of a volume."""
        sizes = np.maximum([size for span in unpacked(volume) for size in span.sizes], 1)
        return sizes * np.maximum(np.interp(sizes, self.sizes, self.per_atom), SECONDS_PER_ATOM)


def _spread(volumes: Sequence[bytes]) -> Iterator[Span]:
    """A few structures from all over some volumes, but no large file that must be read as a whole."""
    starts = [0, *accumulate(sum(span.n_structures for span in unpacked(volume)) for volume in volumes)]
    chosen = sorted({round(place) for place in np.linspace(0, starts[-1] - 1, SAMPLE)})
    for volume, start, end in zip(volumes, starts, starts[1:], strict=False):
        inside = {place - start for place in chosen if start <= place < end}
        if inside:
            spans = (span for k, span in enumerate(singles(unpacked(volume))) if k in inside)
            yield from (span for span in spans if span.bounds or span.sizes[0] <= MAX_ATOMS)


def _seconds_of(computation: Computation[Any, Any], models: Mapping[str, Any], span: Span) -> float:
    """Estimate for a structure, or for those of a file."""
    items = [item for item in read_spans([span], lambda _: None) if isinstance(item, LoadedStructure)]
    for item in items:
        set_magmoms(item.atoms, initial_magmoms(item.atoms, computation.settings.initial_magmoms)[0])
    settings = computation.settings
    part = Run(computation.declared, settings, Path(settings.output), dict(models), list(items))
    computation.preview(part)
    if not items:
        raise ValueError("holds no structure that can be read")
    return sum(estimated_seconds(computation, item) for item in part.structures)

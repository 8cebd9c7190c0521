"""Data of a training: read, split, and counted."""

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase.data import chemical_symbols

from mmace_sim.base.quantities import DEFAULT_HEAD
from mmace_sim.errors import DataError
from mmace_sim.io.frames import LABELS
from mmace_sim.training.config import DataConfig, DataSource
from mmace_sim.training.data.stream import Frames, open_frames
from mmace_sim.training.data.stream_summary import (
    elements_of,
    require_labels,
    select,
    split_frames,
    summarize,
)

logger = logging.getLogger(__name__)


@dataclass
class DataSplit:
    """Structures of the three sets."""

    train: Frames
    valid: Frames
    test: Frames

    @cached_property
    def config_types(self) -> list[str]:
        """Those of the training and validation structures."""
        return sorted(summarize(self.train).kinds | summarize(self.valid).kinds)


def read_split(config: DataConfig) -> DataSplit:
    """Read the files of a configuration and split what it does not give separately.

    Raises:
        DataError: If a file cannot be read, a structure in it cannot be used, or a set is empty.
    """
    split = DataSplit([], [], [])
    for head, source in config.sources().items():
        part = _read_source(source, head)
        split.train += part.train
        split.valid += part.valid
        split.test += part.test
    foreign = {*elements_of(split.valid), *elements_of(split.test)} - set(elements_of(split.train))
    if foreign:
        names = ", ".join(chemical_symbols[z] for z in sorted(foreign))
        raise DataError(f"validation or test structures hold {names}, which no training structure has")
    return split


def _read_source(source: DataSource, head: str) -> DataSplit:
    """The three sets of one head."""
    files = (source.train_file, source.valid_file, source.test_file)
    which = "" if head == DEFAULT_HEAD else f"{head} "
    train, valid, test = (
        _with_elements(open_frames(paths, source.keys, head, stream=source.stream), source.elements, which)
        for paths in files
    )
    valid_fraction = 0.0 if valid else source.valid_fraction
    test_fraction = 0.0 if test else source.test_fraction
    n_files = len(train)
    train, more_valid, more_test = split_frames(train, valid_fraction, test_fraction)
    valid = valid or more_valid
    validates = bool(source.valid_file) or valid_fraction > 0.0
    if not len(train) or (validates and not len(valid)):
        empty = "validation" if len(train) else "training"
        raise DataError(
            f"the {which}{empty} set is empty: a hash of each structure's identity decides where it falls, and of "
            f"{n_files} structures none came there with valid_fraction {valid_fraction:g} and test_fraction "
            f"{test_fraction:g}. Choose {'larger' if len(train) else 'smaller'} fractions, give a valid_file, or set "
            "valid_fraction: 0 to train without validation (the last weights then become the model)."
        )
    train = _without_large_forces(train, source.max_force, f"{which}training")
    valid = _without_large_forces(valid, source.max_force, f"{which}validation")
    require_labels(train, f"{which}training")
    if validates:
        require_labels(valid, f"{which}validation")
    return DataSplit(train, valid, test or more_test)


def _with_elements(frames: Frames, elements: list[int], which: str) -> Frames:
    """The structures of a set that hold no other elements; how many do is told in the log.

    Raises:
        DataError: If all do.
    """
    if not elements or not len(frames):
        return frames
    summary = summarize(frames)
    others = np.zeros(len(frames), dtype=bool)
    others[summary.owners[~np.isin(summary.elements, elements)]] = True
    symbols = ", ".join(chemical_symbols[z] for z in elements)
    if others.all():
        raise DataError(
            f"all {len(frames)} structures of a {which}set hold other elements than {symbols} (elements)"
        )
    if others.any():
        logger.info(
            "left out %d of %d structures with other elements than %s", others.sum(), len(frames), symbols
        )
    return select(frames, ~others)


def _without_large_forces(frames: Frames, limit: float | None, what: str) -> Frames:
    """The structures of a set without those that have a larger force, which are counted in the log."""
    if limit is None or not len(frames):
        return frames
    forces = summarize(frames).forces
    if n_large := int((forces > limit).sum()):
        logger.info(
            "left out %d of %d %s structures with a force above %g eV/Å (the largest is %.4g eV/Å)",
            n_large,
            len(frames),
            what,
            limit,
            forces.max(),
        )
    return select(frames, forces <= limit)


def describe_split(split: DataSplit) -> str:
    """Sizes of the sets and of their labels, for the log."""
    lines = []
    for name in ("train", "valid", "test"):
        summary = summarize(getattr(split, name))
        counts = "  ".join(f"{label} {int(summary.has(label).sum())}" for label in LABELS)
        n_atoms = int(summary.n_atoms.sum())
        lines.append(f"{name}: {len(summary)} structures, {n_atoms} atoms; with {counts}")
    return "\n".join(lines)

"""From a configuration and structures to a model that is ready for its first step."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers as number_of_symbol
from ase.data import chemical_symbols
from pydantic import ValidationError

from mmace_sim.errors import ConfigError, DataError
from mmace_sim.model.architectures import ARCHITECTURES, DEFAULT_ARCHITECTURE, AnyModel, Architecture
from mmace_sim.model.checkpoint import load_all_heads, load_model
from mmace_sim.model.config import DEFAULT_HEAD, SMALL_MOMENT, ArchitectureConfig
from mmace_sim.model.heads import with_heads
from mmace_sim.model.paper_mmace import PaperConfig
from mmace_sim.model.reference import ReferenceSample, fit_reference
from mmace_sim.model.registry import split_head
from mmace_sim.training.config import DataConfig, DataSource, LabelKeys, TrainConfig
from mmace_sim.training.dataset import elements_of, require_labels
from mmace_sim.training.frames import LABELS, Frame, read_frames, split_frames

logger = logging.getLogger(__name__)


@dataclass
class DataSplit:
    """Structures of the three sets."""

    train: list[Frame]
    valid: list[Frame]
    test: list[Frame]


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
    foreign = set(elements_of(split.valid + split.test)) - set(elements_of(split.train))
    if foreign:
        names = ", ".join(chemical_symbols[z] for z in sorted(foreign))
        raise DataError(f"validation or test structures hold {names}, which no training structure has")
    return split


def _read_source(source: DataSource, head: str) -> DataSplit:
    """The three sets of one head."""
    train = _read_usable(source.train_file, source.keys, head)
    valid = _read_usable(source.valid_file, source.keys, head)
    test = _read_usable(source.test_file, source.keys, head)
    valid_fraction = 0.0 if valid else source.valid_fraction
    test_fraction = 0.0 if test else source.test_fraction
    train, more_valid, more_test = split_frames(train, valid_fraction, test_fraction)
    which = "" if head == DEFAULT_HEAD else f"{head} "
    require_labels(train, f"{which}training")
    if source.valid_file or valid_fraction > 0.0:
        require_labels(valid or more_valid, f"{which}validation")
    return DataSplit(train, valid or more_valid, test or more_test)


def describe_split(split: DataSplit) -> str:
    """Sizes of the sets and of their labels, for the log."""
    lines = []
    for name in ("train", "valid", "test"):
        frames: list[Frame] = getattr(split, name)
        counts = "  ".join(f"{label} {sum(label in f.labels for f in frames)}" for label in LABELS)
        lines.append(
            f"{name}: {len(frames)} structures, {sum(len(f.atoms) for f in frames)} atoms; with {counts}"
        )
    return "\n".join(lines)


def complete_model_config(
    config: TrainConfig, frames: Sequence[Frame], mean_neighbors: float
) -> ArchitectureConfig:
    """Hyper-parameters of the model, with what the configuration leaves open taken from the training structures.

    Args:
        config: The run.
        frames: Training structures.
        mean_neighbors: Mean number of neighbours at the model's cutoff.

    Raises:
        ConfigError: If a value is impossible.
    """
    if "start_from" in config.model:
        complete = _start_config(config)
    else:
        architecture = _architecture(config)
        moments = largest_moments(frames)
        if architecture.config is PaperConfig:  # it takes its scales as they are given
            moments = {z: moment if moment > SMALL_MOMENT else 1.0 for z, moment in moments.items()}
        derived = {
            "atomic_numbers": elements_of(frames),
            "max_moment": moments,
            "heads": _head_moments(frames, moments) if config.data.heads else {DEFAULT_HEAD: {}},
            "avg_num_neighbors": round(max(mean_neighbors, 1.0), 3),
        }
        derived = {k: v for k, v in derived.items() if k in architecture.config.model_fields}
        complete = _model_config(config, derived)
    missing = set(elements_of(frames)) - set(complete.atomic_numbers)
    if missing:
        names = ", ".join(chemical_symbols[z] for z in sorted(missing))
        raise ConfigError(f"model.atomic_numbers leaves out {names}, which the training structures hold")
    if list(complete.heads) != list(config.data.sources()):
        names = ", ".join(config.data.sources())
        raise ConfigError(f"model.heads are {', '.join(complete.heads)}, but the data have the heads {names}")
    return complete


def resolved_model_section(config: TrainConfig, complete: ArchitectureConfig) -> dict:
    """The model section of a configuration with nothing left open, to be read again.

    Args:
        config: The run.
        complete: Complete hyper-parameters.
    """
    if "start_from" in config.model:
        return config.model
    name = config.model.get("architecture", DEFAULT_ARCHITECTURE)
    return {"architecture": name, **complete.model_dump(mode="json")}


def cutoff_of(config: TrainConfig) -> float:
    """Cutoff radius that the model will have, in Å."""
    if "start_from" in config.model:
        return _start_config(config).r_max
    return _model_config(config, {"atomic_numbers": [1]}, only=("r_max",)).r_max


def largest_moments(frames: Sequence[Frame]) -> dict[int, float]:
    """Largest moment of each element, in μB, rounded up to 0.01."""
    largest: dict[int, float] = {}
    for frame in frames:
        lengths = np.linalg.norm(frame.magmoms, axis=1)
        for z, length in zip(frame.atoms.numbers, lengths, strict=True):
            largest[int(z)] = max(largest.get(int(z), 0.0), float(np.ceil(100.0 * length) / 100.0))
    return largest


def _head_moments(frames: Sequence[Frame], moments: dict[int, float]) -> dict[str, dict[int, float]]:
    """For each head the elements whose moments stay below the largest of all heads."""
    names = dict.fromkeys(frame.head for frame in frames)
    largest = {name: largest_moments([f for f in frames if f.head == name]) for name in names}
    return {name: {z: m for z, m in largest[name].items() if SMALL_MOMENT < m < moments[z]} for name in names}


def build_model(config: TrainConfig, model_config: ArchitectureConfig, frames: Sequence[Frame]) -> AnyModel:
    """The model to go on from, or one with random weights, its reference energies fitted and its energy scale set.

    Args:
        config: The run.
        model_config: Complete hyper-parameters.
        frames: Training structures.
    """
    torch.manual_seed(config.trainer.seed)
    dtype = getattr(torch, config.trainer.dtype)
    if "start_from" in config.model:
        model = start_model(config).train().requires_grad_(requires_grad=True)
        _set_atomic_energies(model, config.data)
        return model.to(dtype)
    model = _architecture(config).model(model_config)
    left = [_fit_head(model, k, name, frames, config) for k, name in enumerate(model.heads)]
    _set_atomic_energies(model, config.data)
    forces = np.concatenate([f.labels["forces"].ravel() for f in frames if "forces" in f.labels] or [[0.0]])
    scale = max(float(np.sqrt(np.mean(forces**2))), *left, 1e-3)
    model.scale.fill_(scale)
    names = [chemical_symbols[z] for z in model.elements] * len(model.heads)
    energies = ", ".join(
        f"{s} {e:.4f}" for s, e in zip(names, model.reference.atomic_energies.tolist(), strict=True)
    )
    logger.info("reference energies (eV): %s; scale %.4f eV", energies, scale)
    return model.to(dtype)


def start_model(config: TrainConfig) -> AnyModel:
    """The model that training goes on from, with the heads of the data.

    A data set whose name is one of the model's heads goes on with it; another one starts from the head chosen behind
    the model's name or by its file.

    Args:
        config: The run.

    Raises:
        ModelFileError: If a head has to be chosen.
    """
    name = config.model["start_from"]
    model = load_all_heads(name)
    heads = list(config.data.sources())
    if split_head(name)[1] is None and set(heads) <= set(model.heads):
        sources = {head: head for head in heads}
    else:
        chosen = load_model(name).heads[0]
        sources = dict.fromkeys(heads, chosen)
    return model if list(sources.items()) == [(h, h) for h in model.heads] else with_heads(model, sources)


def _fit_head(model: AnyModel, head: int, name: str, frames: Sequence[Frame], config: TrainConfig) -> float:
    """Fit the reference energies of one head; returns what they leave of the energies, in eV/atom."""
    own = [f for f in frames if f.head == name and "energy" in f.labels]
    samples = [_reference_sample(frame, config) for frame in own]
    left = fit_reference(model.reference, model.elements, samples, head=head)
    logger.info(
        "one-body fit%s leaves %.1f meV/atom, %.1f meV/μB (longitudinal)",
        f" of head {name}" if config.data.heads else "",
        1000 * left["energy"],
        1000 * left["magforces"],
    )
    return left["energy"]


def _read_usable(paths: Sequence[Path], keys: LabelKeys, head: str) -> list[Frame]:
    found = read_frames(paths, keys)
    if found.problems:
        shown = "\n  ".join(found.problems[:5])
        raise DataError(
            f"{len(found.problems)} structure(s) cannot be used; correct or remove them:\n  {shown}"
        )
    for frame in found.frames:
        frame.head = head
    return found.frames


def _architecture(config: TrainConfig) -> Architecture:
    return ARCHITECTURES[config.model.get("architecture", DEFAULT_ARCHITECTURE)]


def _start_config(config: TrainConfig) -> ArchitectureConfig:
    return start_model(config).config


def _model_config(
    config: TrainConfig, derived: dict, only: Sequence[str] | None = None
) -> ArchitectureConfig:
    """Hyper-parameters of a configuration (or some of them), with values to take where it leaves them open."""
    given = {k: v for k, v in config.model.items() if k != "architecture" and (only is None or k in only)}
    try:
        return _architecture(config).config.model_validate({**derived, **given})
    except ValidationError as error:
        clauses = [f"model.{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
        raise ConfigError("; ".join(clauses)) from error


def _reference_sample(frame: Frame, config: TrainConfig) -> ReferenceSample:
    magforces = frame.labels.get("magforces")
    chosen = config.loss.magforce_elements
    if magforces is not None and chosen is not None:
        known = np.isin(frame.atoms.numbers, [number_of_symbol[s] for s in chosen])
        magforces = np.where(known[:, None], magforces, np.nan)
    return ReferenceSample(frame.atoms.numbers, frame.magmoms, float(frame.labels["energy"]), magforces)


def _set_atomic_energies(model: AnyModel, data: DataConfig) -> None:
    """Put in what the configuration gives."""
    for head, source in enumerate(data.sources().values()):
        for symbol, energy in (source.atomic_energies or {}).items():
            z = number_of_symbol.get(symbol)
            if z not in model.elements:
                raise ConfigError(
                    f"data.atomic_energies names {symbol!r}, which is no element of the training structures"
                )
            model.reference.atomic_energies[head * len(model.elements) + model.elements.index(z)] = energy

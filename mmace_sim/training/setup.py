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
from mmace_sim.model.checkpoint import load_model, read_metadata
from mmace_sim.model.config import SMALL_MOMENT, ArchitectureConfig
from mmace_sim.model.paper_mmace import PaperConfig
from mmace_sim.model.reference import ReferenceSample, fit_reference
from mmace_sim.training.config import DataConfig, LabelKeys, TrainConfig
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
    train = _read_usable(config.train_file, config.keys)
    valid = _read_usable(config.valid_file, config.keys)
    test = _read_usable(config.test_file, config.keys)
    valid_fraction = 0.0 if valid else config.valid_fraction
    test_fraction = 0.0 if test else config.test_fraction
    train, more_valid, more_test = split_frames(train, valid_fraction, test_fraction)
    split = DataSplit(train, valid or more_valid, test or more_test)
    require_labels(split.train, "training")
    if config.valid_file or valid_fraction > 0.0:
        require_labels(split.valid, "validation")
    foreign = set(elements_of(split.valid + split.test)) - set(elements_of(split.train))
    if foreign:
        names = ", ".join(chemical_symbols[z] for z in sorted(foreign))
        raise DataError(f"validation or test structures hold {names}, which no training structure has")
    return split


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
            "avg_num_neighbors": round(max(mean_neighbors, 1.0), 3),
        }
        derived = {k: v for k, v in derived.items() if k in architecture.config.model_fields}
        complete = _model_config(config, derived)
    missing = set(elements_of(frames)) - set(complete.atomic_numbers)
    if missing:
        names = ", ".join(chemical_symbols[z] for z in sorted(missing))
        raise ConfigError(f"model.atomic_numbers leaves out {names}, which the training structures hold")
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
        model = load_model(config.model["start_from"]).train().requires_grad_(requires_grad=True)
        if config.data.atomic_energies is not None:
            _set_atomic_energies(model, config.data.atomic_energies)
        return model.to(dtype)
    model = _architecture(config).model(model_config)
    samples = [_reference_sample(frame, config) for frame in frames if "energy" in frame.labels]
    left = fit_reference(model.reference, model.elements, samples)
    if config.data.atomic_energies is not None:
        _set_atomic_energies(model, config.data.atomic_energies)
    forces = np.concatenate([f.labels["forces"].ravel() for f in frames if "forces" in f.labels] or [[0.0]])
    scale = max(float(np.sqrt(np.mean(forces**2))), left["energy"], 1e-3)
    model.scale.fill_(scale)
    names = [chemical_symbols[z] for z in model.elements]
    energies = ", ".join(
        f"{s} {e:.4f}" for s, e in zip(names, model.reference.atomic_energies.tolist(), strict=True)
    )
    logger.info("reference energies (eV): %s; scale %.4f eV", energies, scale)
    logger.info(
        "one-body fit leaves %.1f meV/atom, %.1f meV/μB (longitudinal)",
        1000 * left["energy"],
        1000 * left["magforces"],
    )
    return model.to(dtype)


def _read_usable(paths: Sequence[Path], keys: LabelKeys) -> list[Frame]:
    found = read_frames(paths, keys)
    if found.problems:
        shown = "\n  ".join(found.problems[:5])
        raise DataError(
            f"{len(found.problems)} structure(s) cannot be used; correct or remove them:\n  {shown}"
        )
    return found.frames


def _architecture(config: TrainConfig) -> Architecture:
    return ARCHITECTURES[config.model.get("architecture", DEFAULT_ARCHITECTURE)]


def _start_config(config: TrainConfig) -> ArchitectureConfig:
    header = read_metadata(config.model["start_from"])
    return ARCHITECTURES[header["architecture"]].config.model_validate(header["config"])


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


def _set_atomic_energies(model: AnyModel, given: dict[str, float]) -> None:
    for symbol, energy in given.items():
        z = number_of_symbol.get(symbol)
        if z not in model.elements:
            raise ConfigError(
                f"data.atomic_energies names {symbol!r}, which is no element of the training structures"
            )
        model.reference.atomic_energies[model.elements.index(z)] = energy

"""From a configuration and structures to a model that is ready for its first step."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers as number_of_symbol
from ase.data import chemical_symbols
from pydantic import ValidationError

from mmace_sim.architectures.foundation_mmace import FoundationConfig, FoundationMMACE
from mmace_sim.architectures.paper_mmace import PaperConfig
from mmace_sim.base.quantities import DEFAULT_HEAD
from mmace_sim.errors import ConfigError
from mmace_sim.io.frames import Frame
from mmace_sim.model.architectures import ARCHITECTURES, DEFAULT_ARCHITECTURE, Architecture
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.checkpoint import load_all_heads, load_model
from mmace_sim.model.config import SMALL_MOMENT, ArchitectureConfig
from mmace_sim.model.heads import with_heads
from mmace_sim.model.reference import ReferenceSample, fit_reference
from mmace_sim.model.registry import split_head
from mmace_sim.training.config import DataConfig, DataSource, TrainConfig
from mmace_sim.training.data.limits import lower_onsets, with_onsets
from mmace_sim.training.data.split import DataSplit
from mmace_sim.training.data.stream_summary import elements_of, sample, select, summarize
from mmace_sim.training.finetuning.from_foundation import (
    foundation_config,
    foundation_file,
    foundation_model,
    left_of_energies,
    resolved_section,
)
from mmace_sim.training.followers import with_followers

logger = logging.getLogger(__name__)

FIT_SAMPLE: int = 10_000
"""Structures that energies of isolated atoms, one-body energies and the scale of energies are fitted to at most."""


def check_names(config: TrainConfig, split: DataSplit) -> None:
    """Warn of elements in the loss that no training structure has."""
    elements = [chemical_symbols[z] for z in elements_of(split.train)]
    wrong = [symbol for symbol in config.loss.magforce_elements or () if symbol not in elements]
    if wrong:
        logger.warning(
            "loss.magforce_elements names %s, which no training structure has (they have %s)",
            ", ".join(wrong),
            ", ".join(elements),
        )


def complete_model_config(
    config: TrainConfig,
    frames: Sequence[Frame],
    mean_neighbors: float,
    onsets: dict[str, float] | None = None,
) -> ArchitectureConfig:
    """Hyper-parameters of the model, with what the configuration leaves open taken from the training structures.

    Args:
        config: The run.
        frames: Training structures.
        mean_neighbors: Mean number of neighbours at the model's cutoff.
        onsets: Distances below which a repulsion acts, for models that have one; None: models have none by default.

    Raises:
        ConfigError: If a value is impossible.
    """
    config = with_onsets(config, onsets)
    if "start_from" in config.model:
        complete = start_model(config).config
        if complete.repulsion is not None:
            lower = lower_onsets(complete.repulsion, onsets or {})
            complete = complete.model_copy(update={"repulsion": lower})
    elif "foundation" in config.model:
        complete = foundation_config(
            config.model, _derived_fields(config, frames, summarize(frames).largest_moments)
        )
    else:
        architecture = _architecture(config)
        moments = summarize(frames).largest_moments
        if architecture.config is PaperConfig:  # it takes its scales as they are given
            moments = {z: max(moment, SMALL_MOMENT) for z, moment in moments.items()}
        derived = _derived_fields(config, frames, moments)
        derived["avg_num_neighbors"] = round(max(mean_neighbors, 1.0), 3)
        derived = {k: v for k, v in derived.items() if k in architecture.config.model_fields}
        complete = with_followers(_model_config(config, derived), frames, config.loss.magforce_elements)
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
    if isinstance(complete, FoundationConfig):
        return resolved_section(config.model, complete)
    name = config.model.get("architecture", DEFAULT_ARCHITECTURE)
    return {"architecture": name, **complete.model_dump(mode="json")}


def cutoff_of(config: TrainConfig) -> float:
    """Cutoff radius that the model will have, in Å."""
    if "start_from" in config.model:
        return start_model(config).r_max
    if "foundation" in config.model:
        return foundation_file(config.model["foundation"]).r_max
    return _model_config(config, {"atomic_numbers": [1]}, only=("r_max",)).r_max


def _derived_fields(
    config: TrainConfig, frames: Sequence[Frame], moments: dict[int, float]
) -> dict[str, Any]:
    """What the data say about fields that a configuration leaves open."""
    small = [z for z, moment in moments.items() if moment <= SMALL_MOMENT]
    return {
        "atomic_numbers": elements_of(frames),
        "max_moment": moments,
        "nonmagnetic": [] if "max_moment" in config.model else small,
        "heads": _head_moments(frames, moments) if config.data.heads else {DEFAULT_HEAD: {}},
    }


def _head_moments(frames: Sequence[Frame], moments: dict[int, float]) -> dict[str, dict[int, float]]:
    """For each head the elements whose moments stay below the largest of all heads."""
    heads = summarize(frames).heads
    largest = {
        name: summarize(select(frames, heads == name)).largest_moments
        for name in dict.fromkeys(heads.tolist())
    }
    return {
        name: {z: max(m, SMALL_MOMENT) for z, m in largest[name].items() if max(m, SMALL_MOMENT) < moments[z]}
        for name in largest
    }


def build_model(
    config: TrainConfig, model_config: ArchitectureConfig, frames: Sequence[Frame]
) -> MagneticModel:
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
        model.set_limits(
            repulsion=model_config.repulsion, energy_floor={}, energy_ceiling={}, max_crowding={}
        )
        _set_atomic_energies(model, config.data)
        return model.to(dtype)
    if isinstance(model_config, FoundationConfig) and "foundation" in config.model:
        model = foundation_model(config.model, model_config)
        _fit_above(model, frames, config)
        return model.to(dtype)
    _check_zeros(frames, config.data)
    model = _architecture(config).model(model_config)
    left = [
        _fit_head(model, k, frames, config, given_energies(model, source))
        for k, source in enumerate(config.data.sources().values())
    ]
    some = sample(select(frames, summarize(frames).has("forces")), FIT_SAMPLE)
    forces = np.concatenate([f.labels["forces"].ravel() for f in some] or [np.zeros(1)])
    scale = max(float(np.sqrt(np.mean(forces**2))), *left, 1e-3)
    model.scale.fill_(scale)
    names = [chemical_symbols[z] for z in model.elements] * len(model.heads)
    energies = ", ".join(
        f"{s} {e:.4f}" for s, e in zip(names, model.reference.atomic_energies.tolist(), strict=True)
    )
    logger.info("reference energies (eV): %s; scale %.4f eV", energies, scale)
    if config.warm_start is not None:
        _take_weights(model, config.warm_start)
    return model.to(dtype)


def _take_weights(model: MagneticModel, file: Path) -> None:
    """Start the network from that of a model file, wherever shapes agree.

    Weights stand by the place of their element: those of a model of other elements are not taken.
    """
    other = load_all_heads(file)
    if other.elements != model.elements:
        theirs, ours = (" ".join(chemical_symbols[z] for z in m.elements) for m in (other, model))
        logger.warning("warm_start: %s is of %s, the data are of %s; weights start anew", file, theirs, ours)
        return
    given = dict(other.named_parameters())
    taken = 0
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name in given and given[name].shape == weights.shape:
                weights.copy_(given[name])
                taken += 1
    total = len(list(model.parameters()))
    if taken == 0:
        raise ConfigError(f"warm_start: no weights of {file} fit the hyper-parameters of this model.")
    model.scale.copy_(other.scale)
    logger.info("%d of %d tensors of weights start from %s", taken, total, file)


def start_model(config: TrainConfig) -> MagneticModel:
    """The model that training goes on from, with the heads of the data.

    A data set whose name is one of the model's heads goes on with it; another one starts from the head chosen behind
    the model's name or by its file.

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


def start_config(config: TrainConfig) -> ArchitectureConfig | None:
    """Hyper-parameters of the model that training goes on from, if there is one."""
    return start_model(config).config if "start_from" in config.model else None


def _fit_above(model: FoundationMMACE, frames: Sequence[Frame], config: TrainConfig) -> None:
    """Fit the reference energies to what a foundation leaves of the energies, and put up the wall."""
    energies = model.reference.atomic_energies.clone()
    left = left_of_energies(model, sample(frames, FIT_SAMPLE))
    for k, source in enumerate(config.data.sources().values()):
        own = dict(zip(model.elements, energies[k * len(model.elements) :].tolist(), strict=False))
        given = {z: energy - own[z] for z, energy in given_energies(model, source).items()}
        _fit_head(model, k, left, config, given)
    model.reference.atomic_energies += energies
    model.reference.wall_on.fill_(1.0)


def _fit_head(
    model: MagneticModel, head: int, frames: Sequence[Frame], config: TrainConfig, given: dict[int, float]
) -> float:
    """Fit the reference energies of one head but those given; returns what they leave of the energies, in eV/atom."""
    summary, name = summarize(frames), model.heads[head]
    own = sample(select(frames, (summary.heads == name) & summary.has("energy")), FIT_SAMPLE)
    samples = [reference_sample(frame, config.loss.magforce_elements) for frame in own]
    left = fit_reference(
        model.reference,
        model.elements,
        samples,
        head=head,
        atomic_energies=given,
        followers=getattr(model.config, "nonmagnetic", ()),
    )
    logger.info(
        "one-body fit%s leaves %.1f meV/atom, %.1f meV/μB (longitudinal)",
        f" of head {name}" if config.data.heads else "",
        1000 * left["energy"],
        1000 * left["magforces"],
    )
    return left["energy"]


def _architecture(config: TrainConfig) -> Architecture:
    return ARCHITECTURES[config.model.get("architecture", DEFAULT_ARCHITECTURE)]


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


def reference_sample(frame: Frame, magforce_elements: Sequence[str] | None) -> ReferenceSample:
    """What the one-body fit needs to know of a structure.

    Args:
        frame: Structure with an energy.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.
    """
    magforces = frame.labels.get("magforces")
    if magforces is not None and magforce_elements is not None:
        known = np.isin(frame.atoms.numbers, [number_of_symbol[s] for s in magforce_elements])
        magforces = np.where(known[:, None], magforces, np.nan)
    return ReferenceSample(frame.atoms.numbers, frame.magmoms, float(frame.labels["energy"]), magforces)


def given_energies(model: MagneticModel, source: DataSource) -> dict[int, float]:
    """Energies of isolated atoms that a configuration gives, by atomic number, in eV.

    Args:
        model: Model with the elements of the data.
        source: Data set.

    Raises:
        ConfigError: If an element is none of the model's.
    """
    given = {}
    for symbol, energy in (source.atomic_energies or {}).items():
        z = number_of_symbol.get(symbol)
        if z not in model.elements:
            raise ConfigError(
                f"data.atomic_energies names {symbol!r}, which is no element of the training structures"
            )
        given[z] = energy
    return given


def _check_zeros(frames: Sequence[Frame], data: DataConfig) -> None:
    """The network, which all heads share, adds to given atoms or to a fit: not to both for one element."""
    if not data.heads:
        return
    heads = summarize(frames).heads
    given: dict[int, str] = {}
    fitted: dict[int, str] = {}
    for name, source in data.heads.items():
        for z in elements_of(select(frames, heads == name)):
            known = chemical_symbols[z] in (source.atomic_energies or {})
            (given if known else fitted)[z] = name
    for z in sorted(given.keys() & fitted.keys()):
        raise ConfigError(
            f"data.heads: atomic_energies gives {chemical_symbols[z]} for {given[z]} but not for {fitted[z]}, where it "
            "would be fitted to crystals: the network, which they share, cannot hold the cohesive energy of one alone. "
            "Give it for both (for the other, add the difference of the energies of a crystal that both have), or for "
            "neither."
        )


def _set_atomic_energies(model: MagneticModel, data: DataConfig) -> None:
    """Put in what the configuration gives."""
    for head, source in enumerate(data.sources().values()):
        for z, energy in given_energies(model, source).items():
            model.reference.atomic_energies[head * len(model.elements) + model.elements.index(z)] = energy

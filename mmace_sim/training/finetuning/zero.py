"""The zero of energy of a fine-tuned model: E0 and E1 of its elements from the new data."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase.data import chemical_symbols

from mmace_sim.errors import ConfigError
from mmace_sim.io.frames import Frame
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.reference import fit_reference
from mmace_sim.training.data.stream_summary import elements_of
from mmace_sim.training.finetuning.replay import label
from mmace_sim.training.setup import reference_sample

logger = logging.getLogger(__name__)


def zero_shift(model: MagneticModel, frames: Sequence[Frame]) -> np.ndarray:
    """What has to be added to E0 of each element so that a model's energies fit those of other data best.

    Minimises Σ [(E − E_model)/n − Σ_z x_z ΔE0_z]² over structures of n atoms with the concentrations x_z. Directions
    that the data do not fix get the minimum-norm solution around the mean of the residuals.

    Args:
        model: Model with one head.
        frames: Structures, all with energies.

    Returns:
        ΔE0 of each of the model's elements, in eV.
    """
    predicted = label(model, frames)
    n_atoms = np.array([len(frame.atoms) for frame in frames])
    residual = [
        float(f.labels["energy"] - p.labels["energy"]) for f, p in zip(frames, predicted, strict=True)
    ]
    counts = np.array([[(frame.atoms.numbers == z).sum() for z in model.elements] for frame in frames])
    mean = (per_atom := np.array(residual) / n_atoms).mean()
    present = counts.sum(axis=0) > 0
    shift = np.linalg.lstsq(counts[:, present] / n_atoms[:, None], per_atom - mean, rcond=1e-10)[0]
    result = np.zeros(len(model.elements))
    result[present] = shift + mean
    return result


def set_zero(
    start: MagneticModel, head: int, base: MagneticModel, frames: Sequence[Frame], e0: str | dict[str, float]
) -> None:
    """Move the isolated-atom energies of one head of the new model."""
    own = slice(head * len(start.elements), (head + 1) * len(start.elements))
    names = [chemical_symbols[z] for z in start.elements]
    energies = start.reference.atomic_energies[own].clone()
    if e0 == "refit":
        energies += torch.from_numpy(zero_shift(base, frames))
    elif isinstance(e0, dict):
        for symbol, energy in e0.items():
            if symbol not in names:
                raise ConfigError(f"e0 names {symbol!r}, but the model knows {', '.join(names)}")
            energies[names.index(symbol)] = energy
    moved = energies - start.reference.atomic_energies[own]
    start.reference.atomic_energies[own] = energies
    _log_moved(start, head, moved)


def has_one_body(model: MagneticModel, elements: Sequence[int]) -> bool:
    """Whether a model has an energy of the moment alone for some of the elements.

    Args:
        model: Model with one head.
        elements: Atomic numbers.
    """
    rows = [model.elements.index(z) for z in elements]
    return bool(model.reference.one_body[rows].any())


def refit_one_body(
    start: MagneticModel,
    head: int,
    base: MagneticModel,
    frames: Sequence[Frame],
    magforce_elements: list[str] | None,
) -> None:
    """Add to E0 and E1 of one head what the model before leaves of energies and magnetic forces.

    E1 of elements without moments in the data, which tell nothing of it, stays as it is.
    """
    samples = [
        reference_sample(
            replace(
                f,
                labels={
                    k: np.asarray(f.labels[k] - p.labels[k]) for k in ("energy", "magforces") if k in f.labels
                },
            ),
            magforce_elements,
        )
        for f, p in zip(frames, label(base, frames), strict=True)
    ]
    change = copy.deepcopy(start.reference)
    left = fit_reference(change, start.elements, samples, head=head, spring=0.0)
    known = [k for k, z in enumerate(start.elements) if z in elements_of(frames)]
    rows = [head * len(start.elements) + k for k in known]
    start.reference.atomic_energies[rows] += change.atomic_energies[rows]
    start.reference.one_body[rows] += change.one_body[rows]
    moved = torch.zeros(len(start.elements), dtype=torch.float64)
    moved[known] = change.atomic_energies[rows]
    logger.info(
        "one-body energies E1(m·m) of head %s fitted: they leave %.1f meV/atom, %.1f meV/μB (longitudinal)",
        start.heads[head],
        1000 * left["energy"],
        1000 * left["magforces"],
    )
    _log_moved(start, head, moved)


def _log_moved(start: MagneticModel, head: int, moved: torch.Tensor) -> None:
    shifts = zip(start.elements, moved.tolist(), strict=True)
    told = ", ".join(f"{chemical_symbols[z]} by {shift:.4f}" for z, shift in shifts)
    logger.info("isolated-atom energies of head %s moved (eV): %s", start.heads[head], told)

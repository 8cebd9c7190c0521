"""Figure of the one-body energies E1(|m|) beside the longitudinal magnetic forces of the data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from mmace_sim.io.frames import Frame
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.config import SMALL_MOMENT
from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.training.data.stream_summary import sample, select, summarize

N_BINS = 30
"""Intervals of |m| over which the forces of the data are averaged."""

_MIN_LENGTH = 0.05
"""Shorter moments have no direction, in μB."""
_BEYOND_WALL = 1.12
"""End of the curves in units of the largest moment."""
_MAX_FRAMES = 2000
_MIN_COUNT = 5


def save_one_body_figures(
    model: MagneticModel,
    frames: Sequence[Frame],
    folder: Path,
    magforce_elements: Sequence[str] | None = None,
) -> list[Path]:
    """Draw −dE1/d|m| with the data's T·m̂, and E1, against |m|, for each element with moments.

    The data hold what neighbours do to a moment as well, so their spread about the curve is no error of the fit; the
    mean is what one atom can explain.

    Args:
        model: Model whose reference energies were fitted.
        frames: Training structures.
        folder: Existing folder.
        magforce_elements: Elements whose magnetic forces are labels; default: all.

    Returns:
        Files written: `one_body.png` and `.svg`, of a model with several heads `one_body_HEAD.png` and `.svg`.
    """
    summary = summarize(frames)
    written = []
    for k, head in enumerate(model.heads):
        own = sample(select(frames, (summary.heads == head) & summary.has("magforces")), _MAX_FRAMES)
        pairs = longitudinal_forces(own, magforce_elements)
        name = "one_body" if len(model.heads) == 1 else f"one_body_{head}"
        written += _draw(model, k, pairs, folder / name)
    return written


def longitudinal_forces(
    frames: Sequence[Frame], magforce_elements: Sequence[str] | None = None
) -> dict[int, np.ndarray]:
    """Lengths of moments and the magnetic forces along them.

    Args:
        frames: Structures with magnetic forces.
        magforce_elements: Elements whose magnetic forces are labels; default: all.

    Returns:
        For each atomic number |m| in μB and T·m̂ in eV/μB, one row per atom.
    """
    constrained = None if magforce_elements is None else [atomic_numbers[s] for s in magforce_elements]
    found: dict[int, list[np.ndarray]] = {}
    for frame in frames:
        lengths = np.linalg.norm(frame.magmoms, axis=1)
        along = (frame.labels["magforces"] * frame.magmoms).sum(axis=1) / np.maximum(lengths, _MIN_LENGTH)
        for z in np.unique(frame.atoms.numbers).tolist():
            if constrained is None or z in constrained:
                chosen = (frame.atoms.numbers == z) & (lengths > _MIN_LENGTH)
                found.setdefault(z, []).append(np.stack([lengths[chosen], along[chosen]], axis=1))
    return {z: np.concatenate(parts) for z, parts in found.items()}


def one_body_curve(model: MagneticModel, head: int, species: int, lengths: np.ndarray) -> np.ndarray:
    """E1 and −dE1/d|m| of an element, its wall included.

    Args:
        model: The model.
        head: Number of the head.
        species: Number of the element in the model's list.
        lengths: |m|, in μB.

    Returns:
        E1 in eV and −dE1/d|m| in eV/μB, one row per length.
    """
    device = model.reference.one_body.device
    length = torch.tensor(lengths, dtype=torch.float64, device=device, requires_grad=True)
    magmoms = length[:, None] * torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device=device)
    row = torch.full(length.shape, species + head * len(model.elements), device=device)
    energy = model.reference(magmoms, row) - model.reference(torch.zeros_like(magmoms), row)
    (slope,) = torch.autograd.grad(energy.sum(), length)
    return torch.stack([energy.detach(), -slope], dim=1).cpu().numpy()


def binned(pairs: np.ndarray) -> np.ndarray:
    """Mean and spread over equal intervals of |m|, those with few atoms left out.

    Args:
        pairs: |m| and T·m̂, one row per atom.

    Returns:
        Mean |m|, mean and standard deviation of T·m̂, one row per interval.
    """
    edges = np.linspace(0.0, pairs[:, 0].max() + 1e-9, N_BINS + 1)
    which = np.digitize(pairs[:, 0], edges)
    parts = [pairs[which == k] for k in np.unique(which)]
    rows = [[*p.mean(axis=0), p[:, 1].std()] for p in parts if len(p) >= min(_MIN_COUNT, len(pairs))]
    return np.array(rows).reshape(-1, 3)


def _draw(model: MagneticModel, head: int, pairs: dict[int, np.ndarray], path: Path) -> list[Path]:
    figure, axes = new_figure("page", aspect=0.4)
    size = float(axes.xaxis.label.get_fontsize())
    axes.remove()
    force, energy = figure.subplots(1, 2)
    largest = model.reference.max_moment.tolist()[head * len(model.elements) :]
    magnetic = [k for k in range(len(model.elements)) if largest[k] > SMALL_MOMENT]
    heights = [np.zeros(1)]
    for n, k in enumerate(magnetic):
        color, marker = COLORS[n % len(COLORS)], MARKERS[n % len(MARKERS)]
        symbol = chemical_symbols[model.elements[k]]
        lengths = np.linspace(0.0, _BEYOND_WALL * largest[k], 300)
        curve = one_body_curve(model, head, k, lengths)
        force.plot(lengths, curve[:, 1], color=color, linewidth=1.0, label=f"{symbol}: −dE₁/d|m|")
        energy.plot(lengths, curve[:, 0], color=color, linewidth=1.0, label=symbol)
        inside = curve[lengths <= largest[k]]
        heights.append(inside[:, 1])
        atoms = pairs.get(model.elements[k], np.zeros((0, 2)))
        if len(atoms):
            mean = binned(atoms)
            style = {"fmt": marker, "color": color, "markersize": 2.5, "elinewidth": 0.5}
            force.errorbar(*mean.T, **style, label=f"{symbol}: data, mean and spread")
            heights += [mean[:, 1] - mean[:, 2], mean[:, 1] + mean[:, 2]]
        for panel in (force, energy):
            panel.axvspan(largest[k], lengths[-1], color=color, alpha=0.12, linewidth=0)
    low, high = np.concatenate(heights).min(), np.concatenate(heights).max()
    force.set_ylim(low - 0.1 * (high - low) - 1e-3, high + 0.1 * (high - low) + 1e-3)
    for panel, label in ((force, "longitudinal magnetic force (eV/μB)"), (energy, "one-body energy E₁ (eV)")):
        panel.axhline(0.0, color=REFERENCE, linewidth=0.5)
        panel.set_xlabel("|m| (μB); shaded: wall above the largest moment", size=size)
        panel.set_ylabel(label, size=size)
        panel.tick_params(labelsize=size - 1)
        panel.set_xlim(0.0, _BEYOND_WALL * max((largest[k] for k in magnetic), default=1.0))
        if magnetic:
            add_legend(panel)
    if magnetic:
        force.get_legend().set_loc("lower left")  # the forces fall
    return save_figure(figure, path)

"""Parity plots: what the model says against the reference, one panel per label."""

from pathlib import Path

import numpy as np

from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.training.evaluate import Evaluation, Parity
from mmace_sim.training.metrics import LabelError

AXES: dict[str, tuple[str, str]] = {
    "energy": ("energy", "eV/atom"),
    "forces": ("forces", "eV/Å"),
    "stress": ("stress", "eV/Å³"),
    "magforces": ("magnetic forces", "eV/μB"),
}
"""Name and unit on the axes of each label."""

MAX_TYPES = 10
"""More config_types than this share one colour."""


def save_parity_plots(result: Evaluation, folder: Path) -> list[Path]:
    """Draw one figure per label, as PNG and SVG.

    Args:
        result: What was evaluated.
        folder: Existing folder to write `parity_<label>.png` and `.svg` into.

    Returns:
        Files written.
    """
    written = []
    for label, parity in result.parity.items():
        if len(parity.reference):
            written += _save_one(label, parity, result.overall[label], result.config_types, folder)
    return written


def _save_one(label: str, parity: Parity, error: LabelError, names: list[str], folder: Path) -> list[Path]:
    reference, prediction = parity.reference.numpy(), parity.prediction.numpy()
    kinds = parity.config_idx.numpy()
    shift = reference.mean() if label == "energy" else 0.0
    figure, axes = new_figure(aspect=1.0)
    low, high = min(reference.min(), prediction.min()) - shift, max(reference.max(), prediction.max()) - shift
    axes.plot([low, high], [low, high], color=REFERENCE, linewidth=0.8, zorder=0)
    present = np.unique(kinds)
    groups = [(names[k], kinds == k) for k in present] if len(present) <= MAX_TYPES else [(None, kinds >= 0)]
    for k, (name, chosen) in enumerate(groups):
        x, y = reference[chosen] - shift, prediction[chosen] - shift
        # the second round of colours has the next marker, so that every group looks different
        color, marker = COLORS[k % len(COLORS)], MARKERS[(k + k // len(COLORS)) % len(MARKERS)]
        axes.scatter(x, y, s=9, color=color, marker=marker, alpha=0.6, linewidths=0, label=name)
    name, unit = AXES[label]
    offset = f" − ({shift:.3f})" if label == "energy" else ""
    axes.set_xlabel(f"reference {name}{offset} ({unit})")
    axes.set_ylabel(f"predicted {name}{offset} ({unit})")
    axes.set_title(f"MAE {error.mae:.3g}, RMSE {error.rmse:.3g} {error.unit}")
    if groups[0][0] is not None:
        add_legend(axes)
    return save_figure(figure, folder / f"parity_{label}")

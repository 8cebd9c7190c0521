"""Parity plots: what the model says against the reference, one panel per label."""

from pathlib import Path

import numpy as np

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # matplotlib is slow to import
    from matplotlib.figure import Figure

    reference, prediction = parity.reference.numpy(), parity.prediction.numpy()
    kinds = parity.config_idx.numpy()
    shift = reference.mean() if label == "energy" else 0.0
    figure = Figure(figsize=(3.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    low, high = min(reference.min(), prediction.min()) - shift, max(reference.max(), prediction.max()) - shift
    axes.plot([low, high], [low, high], color="0.6", linewidth=0.8, zorder=0)
    present = np.unique(kinds)
    groups = [(names[k], kinds == k) for k in present] if len(present) <= MAX_TYPES else [(None, kinds >= 0)]
    markers = "osD^v<>PX*"
    for (name, chosen), marker in zip(groups, markers, strict=False):
        x, y = reference[chosen] - shift, prediction[chosen] - shift
        axes.scatter(x, y, s=9, marker=marker, alpha=0.6, linewidths=0, label=name)
    name, unit = AXES[label]
    offset = f" − ({shift:.3f})" if label == "energy" else ""
    axes.set_xlabel(f"reference {name}{offset} ({unit})", fontsize=8)
    axes.set_ylabel(f"predicted {name}{offset} ({unit})", fontsize=8)
    axes.set_title(f"MAE {error.mae:.3g}, RMSE {error.rmse:.3g} {error.unit}", fontsize=9)
    if groups[0][0] is not None:
        axes.legend(fontsize=5, frameon=False)
    paths = [folder / f"parity_{label}.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=200)
    return paths

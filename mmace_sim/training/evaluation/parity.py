"""Figures of an evaluation: predictions and errors against the reference, directions of magnetic forces, rankings."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmace_sim.io.frames import LABELS
from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.training.evaluation.errors import Samples
from mmace_sim.training.evaluation.evaluate import Evaluation
from mmace_sim.training.evaluation.metrics import MILLI, LabelError
from mmace_sim.training.evaluation.ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES: dict[str, tuple[str, str]] = {
    "energy": ("energy", "eV/atom"),
    "forces": ("force component", "eV/Å"),
    "stress": ("stress component", "eV/Å³"),
    "magforces": ("magnetic force component", "eV/μB"),
}
"""Name and unit on the axes of each label."""

MAX_TYPES = 10
"""More config_types than this share one colour."""

MAX_DRAWN = 20_000
"""Points of one figure; of more, every so many are drawn."""

_ZERO = 1e-8
"""Components that are smaller in reference and prediction (eV, Å, μB) are zero by symmetry."""


def save_evaluation_plots(result: Evaluation, ranking: Ranking, folder: Path) -> list[Path]:
    """Draw the figures of an evaluation, as PNG and SVG.

    Args:
        result: What was evaluated.
        ranking: Order of energies.
        folder: Existing folder to write to.

    Returns:
        Files written: `parity_<label>`, `errors_<label>`, `magforce_angles` and `ranking`, as far as there is something
        to draw.
    """
    written = []
    for label in LABELS:
        if label in result.parity:
            written += _save_parity(label, result, folder)
            written += _save_errors(label, result, folder)
    if "magforce_angle" in result.parity:
        written += _save_angles(result, folder)
    if ranking.groups:
        written += _save_ranking(ranking, folder)
    return written


def _save_parity(label: str, result: Evaluation, folder: Path) -> list[Path]:
    names, path = result.config_types, folder / f"parity_{label}"
    written = _parity(label, result.parity[label], result.overall[label], names, path)
    if label == "energy" and "energy_shifted" in result.derived:
        path = folder / "parity_energy_shifted"
        written += _parity(label, _shifted(result), result.derived["energy_shifted"], names, path)
    return written


def _shifted(result: Evaluation) -> Samples:
    """Energies without the constants of the compositions."""
    samples, numbers = Samples(), {name: k for k, name in enumerate(result.config_types)}
    for record in result.structures:
        shift = result.energy_shifts.get(record.composition)
        if record.energy is not None and shift is not None:
            values = (np.array([record.energy[0]]), np.array([record.energy[1] - shift]))
            samples.add(*values, numbers[record.config_type])
    samples.close()
    return samples


def _parity(label: str, samples: Samples, error: LabelError, names: list[str], path: Path) -> list[Path]:
    center = samples.x.mean() if label == "energy" else 0.0
    x, y = samples.x - center, samples.y - center
    figure, axes = new_figure(aspect=1.0)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    axes.plot(ends, ends, color=REFERENCE, linewidth=0.8, zorder=0)
    _scatter(axes, x, y, samples.kind, names)
    name, unit = AXES[label]
    offset = f" {'+' if center < 0 else '−'} {abs(center):.3f}" if label == "energy" else ""
    axes.set_xlabel(f"reference {name}{offset} ({unit})")
    axes.set_ylabel(f"predicted {name}{offset} ({unit})")
    axes.set_title(f"MAE {error.mae:.3g}, RMSE {error.rmse:.3g} {error.unit}", fontsize=8)
    return save_figure(figure, path)


def _groups(kind: np.ndarray, names: list[str]) -> Iterator[tuple[str | None, np.ndarray, str, str]]:
    """Name, members, colour and marker of every config_type, or of all together if there are too many."""
    present = np.unique(kind)
    chosen = [(names[k], kind == k) for k in present] if len(present) <= MAX_TYPES else [(None, kind >= 0)]
    for k, (name, members) in enumerate(chosen):
        # the second round of colours has the next marker, so that every group looks different
        yield name, members, COLORS[k % len(COLORS)], MARKERS[(k + k // len(COLORS)) % len(MARKERS)]


def _scatter(axes: "Axes", x: np.ndarray, y: np.ndarray, kind: np.ndarray, names: list[str]) -> None:
    step = -(-len(x) // MAX_DRAWN)
    x, y, kind = x[::step], y[::step], kind[::step]
    for name, members, color, marker in _groups(kind, names):
        axes.scatter(
            x[members],
            y[members],
            s=9,
            color=color,
            marker=marker,
            alpha=0.6,
            linewidths=0,
            rasterized=True,
            label=name,
        )
    if axes.get_legend_handles_labels()[1]:
        add_legend(axes)


def _save_errors(label: str, result: Evaluation, folder: Path) -> list[Path]:
    """Part of the values whose error is larger than x; values that symmetry makes zero are left out.

    Energies are without the constants of the compositions, if there are any.
    """
    shifted = label == "energy" and "energy_shifted" in result.derived
    samples, error = _shifted(result) if shifted else result.parity[label], result.overall[label]
    counted = (np.abs(samples.x) > _ZERO) | (np.abs(samples.y) > _ZERO)
    errors, kind = MILLI * np.abs(samples.y - samples.x)[counted], samples.kind[counted]
    if not len(errors):
        return []
    figure, axes = new_figure()
    lines = [("all", errors, COLORS[0], "-")]
    for k, (name, members, _, _) in enumerate(_groups(kind, result.config_types)):
        if name is not None and len(result.config_types) > 1:
            rest = COLORS[1:]
            lines.append((name, errors[members], rest[k % len(rest)], ("-", "--", ":")[k // len(rest) % 3]))
    for name, values, color, style in lines:
        ordered = np.sort(values)
        part = 1.0 - np.arange(len(ordered)) / len(ordered)
        thick = 1.6 if name == "all" else 0.8
        axes.step(
            np.maximum(ordered, 1e-9), part, where="pre", color=color, linestyle=style, lw=thick, label=name
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([k * 10.0**n for n in range(-6, 9) for k in (1, 2, 5)])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    largest = max(errors.max(), 1e-9)
    axes.set_xlim(max(0.5 * np.quantile(errors, 0.02), 1e-3 * largest), 1.5 * largest)
    axes.axhline(0.5, color=REFERENCE, linewidth=0.6, linestyle=":")
    axes.axhline(0.05, color=REFERENCE, linewidth=0.6, linestyle=":")
    what = "shifted energy" if shifted else AXES[label][0]
    axes.set_xlabel(f"|error| of the {what} ({error.unit})")
    axes.set_ylabel("part with a larger error")
    median, tail = np.quantile(errors, (0.5, 0.95))
    axes.set_title(f"median {median:.3g}, 95 % below {tail:.3g} {error.unit}", fontsize=8)
    add_legend(axes)
    return save_figure(figure, folder / f"errors_{label}")


def _save_angles(result: Evaluation, folder: Path) -> list[Path]:
    samples = result.parity["magforce_angle"]
    figure, axes = new_figure()
    _scatter(axes, MILLI * samples.x, samples.y, samples.kind, result.config_types)
    axes.set_xscale("log")
    axes.set_ylim(-5, 185)
    axes.set_yticks(range(0, 181, 45))
    axes.set_xlabel("magnetic force of the reference, |∂E/∂m| (meV/μB)")
    axes.set_ylabel("angle to the prediction (°)")
    error = result.derived.get("magforce_angle")
    if error is not None:
        axes.set_title(f"mean {error.mae:.2g}° where the force is above the threshold", fontsize=8)
    return save_figure(figure, folder / "magforce_angles")


def _save_ranking(ranking: Ranking, folder: Path) -> list[Path]:
    figure, axes = new_figure(aspect=1.0)
    many = len(ranking.groups) > MAX_TYPES
    for k, group in enumerate(ranking.groups):
        lowest = group.reference.argmin()
        x = MILLI * (group.reference - group.reference[lowest])
        y = MILLI * (group.prediction - group.prediction[lowest])
        color, marker = COLORS[k % len(COLORS)], MARKERS[(k + k // len(COLORS)) % len(MARKERS)]
        axes.plot(x, y, marker, color=color, ms=3.5, mew=0, alpha=0.7, label=None if many else group.name)
    ends = axes.get_xlim()
    axes.plot([0, ends[1]], [0, ends[1]], color=REFERENCE, linewidth=0.8, zorder=0)
    axes.set_xlabel("reference, above the lowest state (meV/atom)")
    axes.set_ylabel("predicted, above the same state (meV/atom)")
    pairs, right = (sum(getattr(g, key) for g in ranking.groups) for key in ("n_pairs", "n_right"))
    plural = "" if len(ranking.groups) == 1 else "s"
    axes.set_title(f"{len(ranking.groups)} crystal{plural}: {right} of {pairs} pairs in order", fontsize=8)
    if not many:
        add_legend(axes)
    return save_figure(figure, folder / "ranking")

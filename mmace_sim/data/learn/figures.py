"""The learning curve as a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmace_sim.data.learn.rounds import Round
from mmace_sim.plots import COLORS, MARKERS, add_legend, new_figure, save_figure
from mmace_sim.training.evaluation.metrics import UNITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES: dict[str, str] = {"energy": "energy", "forces": "forces", "magforces": "magnetic forces"}
"""Errors that are drawn, and what they are called."""


def curve_figure(runs: dict[str, Sequence[Round]]) -> "Figure":
    """Mean absolute errors on the test against the number of structures trained on.

    Args:
        runs: Rounds by the name of the run. Each error has a colour, each run a line style.
    """
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    several = len(runs) > 1
    figure, axes = new_figure("page", aspect=0.45) if several else new_figure()
    styles = ("-", "--", ":", "-.")
    for (name, rounds), style in zip(runs.items(), styles, strict=False):
        for (label, title), color, marker in zip(NAMES.items(), COLORS, MARKERS, strict=False):
            points = [(r.n_training, r.errors[label]) for r in rounds if label in r.errors]
            if not points:
                continue
            text = f"{title} ({UNITS[label]})" + (f", {name}" if several else "")
            axes.plot(*zip(*points, strict=True), marker + style, color=color, markersize=4, label=text)
    axes.set_xlabel("structures trained on")
    axes.set_ylabel("mean absolute error on the test")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if several:
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize="small")
    else:
        add_legend(axes)
    return figure


def save_curve_figure(rounds: Sequence[Round], stem: Path) -> list[Path]:
    """Draw the curve of one run as PNG and SVG, if there was a test.

    Args:
        rounds: Its rounds.
        stem: Path without suffix.
    """
    if not any(record.errors for record in rounds):
        return []
    return save_figure(curve_figure({"": rounds}), stem)

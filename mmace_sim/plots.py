"""The look of every figure: one size, one palette that can be read in grey, PNG and SVG."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmace_sim.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS: tuple[str, ...] = ("#14213d", "#b3261e", "#2a9d8f", "#e9a03b", "#a7c7e7")
"""Colours in the order of use, from dark to light, so that they differ in print without colour."""

MARKERS: tuple[str, ...] = ("o", "s", "D", "^", "v")
"""Marker that goes with each colour."""

REFERENCE = "0.6"
"""Grey of guide lines (zero, identity, largest moment)."""

WIDTHS: dict[str, float] = {"column": 3.4, "page": 7.0}
"""Widths of figures, in inches: one column of a journal, or the whole page."""

_PIXELS_PER_INCH = 200

_VECTOR: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmace_sim",
    "font.family": ["DejaVu Sans", "sans-serif"],
}
"""Text in vector graphics stays text, which can be searched and edited; the same figure gives the same file."""


def new_figure(width: Literal["column", "page"] = "column", *, aspect: float = 0.75) -> "tuple[Figure, Axes]":
    """Make an empty figure that needs no display.

    Args:
        width: One of `WIDTHS`.
        aspect: Height relative to the width.

    Returns:
        The figure and its only axes: draw, and label both axes with quantity and unit.
    """
    from cycler import cycler  # matplotlib is slow to import
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTHS[width], aspect * WIDTHS[width]), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_prop_cycle(cycler(color=COLORS))
    axes.tick_params(labelsize=7)
    axes.xaxis.offsetText.set_fontsize(7)
    axes.yaxis.offsetText.set_fontsize(7)
    for text, size in ((axes.xaxis.label, 8), (axes.yaxis.label, 8), (axes.title, 9)):
        text.set_fontsize(size)
    return figure, axes


def add_legend(axes: "Axes") -> None:
    """Explain the labelled lines and points, small and without a frame.

    Args:
        axes: Axes that hold something with a label.
    """
    axes.legend(fontsize=6, frameon=False)


def save_figure(figure: "Figure", path_without_suffix: str | Path) -> list[Path]:
    """Write a figure as PNG and SVG.

    Args:
        figure: Figure from `new_figure`.
        path_without_suffix: Such as ``folder/energy_volume``; ``.png`` and ``.svg`` are added.

    Returns:
        Files written.

    Raises:
        OutputError: If a file cannot be written.
    """
    from matplotlib import rc_context

    stem = Path(path_without_suffix)
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg")]
    layout = figure.get_layout_engine()
    for path in paths:
        with replacing(path) as temporary, rc_context(_VECTOR):
            figure.savefig(temporary, dpi=_PIXELS_PER_INCH)
        # found for the first file, at the cost of a drawing; it is that of the second
        figure.set_layout_engine("none")
    figure.set_layout_engine(layout)
    return paths

"""Figures of workflows have the look of all figures of the package, see `mmace_sim.plots`."""

from mmace_sim.plots import COLORS, MARKERS, REFERENCE, WIDTHS, add_legend, new_figure, save_figure

__all__ = ["COLORS", "MARKERS", "REFERENCE", "WIDTHS", "add_legend", "new_figure", "save_figure"]

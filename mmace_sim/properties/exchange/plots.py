"""Figures of exchange constants."""

from typing import TYPE_CHECKING

import numpy as np

from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure
from mmace_sim.properties.exchange.constants import ExchangeResult
from mmace_sim.properties.results import known
from mmace_sim.properties.written import Figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _exchange_figure(result: ExchangeResult) -> "Figure":
    """J' against distance, from every route."""
    figure, axes = new_figure()
    pairs = known(result.pairs)
    first = pairs.representatives()
    axes.axhline(0.0, color=REFERENCE, linewidth=0.8)
    for route, color, marker in zip(result.tensors, COLORS, MARKERS, strict=False):
        values = 1000 * result.isotropic(route)[first]
        fill = "none" if route != result.route else None
        axes.plot(
            pairs.distances[first], values, marker, color=color, markersize=5, label=route, fillstyle=fill
        )
    axes.set(xlabel="distance (Å)", ylabel="J' (meV per pair, unit vectors)")
    add_legend(axes)
    return figure


def _magnon_figure(result: ExchangeResult) -> "Figure | None":
    """Magnons along the path through the Brillouin zone, if there are any."""
    path = result.magnons
    if path is None:
        return None
    figure, axes = new_figure()
    breaks = np.flatnonzero(np.diff(path.lengths) < 1e-9) + 1  # where one segment ends and the next begins
    for lengths, energies in zip(
        np.split(path.lengths, breaks), np.split(1000 * path.energies, breaks), strict=True
    ):
        axes.plot(lengths, energies, "-", color=COLORS[0], linewidth=1.2)
    places = [place for place, _ in path.ticks]
    for place in places:
        axes.axvline(place, color=REFERENCE, linewidth=0.6)
    axes.set_xticks(places, [name for _, name in path.ticks])
    axes.set_ylim(bottom=0)
    axes.set(xlim=(places[0], places[-1]), xlabel="wave vector", ylabel="magnon energy (meV)")
    return figure


FIGURES: Figures = {"exchange": _exchange_figure, "magnons": _magnon_figure}
"""Of one crystal."""

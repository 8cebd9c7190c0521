"""Figures of exchange constants."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.properties.exchange.constants import ExchangeResult
from mmace_sim.properties.results import known

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def exchange_figure(result: ExchangeResult) -> "Figure":
    """J' against distance, from every route.

    Args:
        result: Exchange of one crystal.

    Returns:
        The figure.
    """
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
    axes.set_xlabel("distance (Å)")
    axes.set_ylabel("J' (meV per pair, unit vectors)")
    add_legend(axes)
    return figure


def magnon_figure(result: ExchangeResult) -> "Figure":
    """Magnons along the path through the Brillouin zone.

    Args:
        result: Exchange of one crystal, with magnons.

    Returns:
        The figure.
    """
    figure, axes = new_figure()
    path = known(result.magnons)
    breaks = np.flatnonzero(np.diff(path.lengths) < 1e-9) + 1  # where one segment ends and the next begins
    for lengths, energies in zip(
        np.split(path.lengths, breaks), np.split(1000 * path.energies, breaks), strict=True
    ):
        axes.plot(lengths, energies, "-", color=COLORS[0], linewidth=1.2)
    places = [place for place, _ in path.ticks]
    for place in places:
        axes.axvline(place, color=REFERENCE, linewidth=0.6)
    axes.set_xticks(places, [name for _, name in path.ticks])
    axes.set_xlim(places[0], places[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("wave vector")
    axes.set_ylabel("magnon energy (meV)")
    return figure


def save_exchange_figures(result: ExchangeResult, folder: Path) -> list[Path]:
    """Write the figures of a crystal.

    Args:
        result: Exchange of one crystal.
        folder: Where ``exchange`` and ``magnons`` go, as PNG and SVG.

    Returns:
        Files written.
    """
    files = save_figure(exchange_figure(result), folder / "exchange")
    return files + (save_figure(magnon_figure(result), folder / "magnons") if result.magnons else [])

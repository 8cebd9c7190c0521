"""Figures of energy-volume curves."""

from typing import TYPE_CHECKING

import numpy as np

from mmace_sim.plots import REFERENCE, add_legend, new_figure
from mmace_sim.properties.eos.equation_of_state import EosResult
from mmace_sim.properties.states import styled_states
from mmace_sim.properties.written import Figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _energy_figure(result: EosResult) -> "Figure | None":
    """Energies of all states against volume, relative to the lowest minimum; None if nothing was computed.

    Markers: points, joined by thin lines; thick lines: equations of state in their windows; bars: minima;
    circles: crossings.
    """
    curves = styled_states(result.curves)
    if not curves:
        return None
    figure, axes = new_figure()
    lowest = result.lowest
    zero = lowest.fits[0].energy if lowest else min(np.nanmin(curve.energies) for curve, _, _ in curves)
    for curve, color, marker in curves:
        axes.plot(
            curve.volumes, 1000 * (curve.energies - zero), marker + "-", color=color, markersize=3, linewidth=0.4,
            label=curve.state.upper(),
        )  # fmt: skip
        for fit in curve.fits:
            volumes = np.linspace(*fit.volume_range, 101)
            axes.plot(volumes, 1000 * (fit.energies(volumes) - zero), "-", color=color, linewidth=1.2)
            axes.plot(fit.volume, 1000 * (fit.energy - zero), "|", color=color, markersize=12)
    for crossing in result.crossings:
        place = crossing.volume, 1000 * (crossing.energy - zero)
        axes.plot(*place, "o", color=REFERENCE, fillstyle="none", markersize=7)
    axes.set(xlabel="volume (Å³/atom)", ylabel="energy (meV/atom)")
    add_legend(axes)
    return figure


def _moment_figure(result: EosResult) -> "Figure | None":
    """Mean length of the moments of all states against volume; jumps are shaded. None if nothing was computed."""
    curves = styled_states(result.curves)
    if not curves:
        return None
    figure, axes = new_figure()
    for curve, color, marker in curves:
        axes.plot(
            curve.volumes, curve.moments, marker + "-", color=color, markersize=3, linewidth=0.8,
            label=curve.state.upper(),
        )  # fmt: skip
        for jump in curve.jumps:
            axes.axvspan(*jump.volumes, color=color, alpha=0.12, linewidth=0)
    axes.set(xlabel="volume (Å³/atom)", ylabel="mean moment (μB)")
    add_legend(axes)
    return figure


FIGURES: Figures = {"_energy": _energy_figure, "_moment": _moment_figure}
"""Of one structure."""

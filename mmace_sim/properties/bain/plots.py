"""Figures of energy maps over c/a and volume."""

from typing import TYPE_CHECKING

import numpy as np

from mmace_sim.plots import REFERENCE, add_legend, new_figure
from mmace_sim.properties.bain.path import BainResult, lowest_along_path
from mmace_sim.properties.states import styled_states
from mmace_sim.properties.written import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIGHEST: float = 400.0
"""Energies above this (meV/atom) are drawn alike."""


def _map_figure(result: BainResult) -> "Figure | None":
    """Contours of the energy of every state, relative to the lowest minimum, side by side; crosses are minima.

    None if nothing was computed.
    """
    maps = [one for one, _, _ in styled_states(result.maps)]
    if not maps:
        return None
    figure, axes = new_figure("page", aspect=0.36 if len(maps) > 2 else 0.5)
    size = float(axes.xaxis.label.get_fontsize())
    axes.remove()
    panels = np.atleast_1d(figure.subplots(1, len(maps), sharex=True, sharey=True))
    highest = min(HIGHEST, max(1000 * float(np.nanmax(m.energies) - result.lowest_energy) for m in maps))
    levels = np.linspace(0, max(highest, 1.0), 17)
    for panel, one in zip(panels, maps, strict=True):
        energies = 1000 * (one.energies.T - result.lowest_energy)
        drawn = panel.contourf(
            result.c_over_a, result.volumes, energies, levels=levels, cmap="viridis", extend="max"
        )
        panel.contour(
            result.c_over_a, result.volumes, energies, levels=levels[1::2], colors="white", linewidths=0.4
        )
        for minimum in one.minima:
            panel.plot(minimum.c_over_a, minimum.volume, "x", color="white", markersize=5)
        panel.set_title(one.state.upper(), size=size + 1)
        panel.set_xlabel("c/a", size=size)
        panel.tick_params(labelsize=size - 1)
    panels[0].set_ylabel("volume (Å³/atom)", size=size)
    bar = figure.colorbar(drawn, ax=list(panels), pad=0.01)
    bar.set_label("energy (meV/atom)", size=size)
    bar.ax.tick_params(labelsize=size - 1)
    return figure


def _path_figure(result: BainResult) -> "Figure | None":
    """Energy of every state at the best volume of each c/a; None if nothing was computed."""
    maps = styled_states(result.maps)
    if not maps:
        return None
    figure, axes = new_figure()
    for one, color, marker in maps:
        path = 1000 * (lowest_along_path(one) - result.lowest_energy)
        axes.plot(
            result.c_over_a, path, marker + "-", color=color, markersize=3, linewidth=0.8,
            label=one.state.upper(),
        )  # fmt: skip
    _mark_lattices(axes, result)
    axes.set(xlabel="c/a", ylabel="energy at the best volume (meV/atom)")
    add_legend(axes)
    return figure


def _mark_lattices(axes: "Axes", result: BainResult) -> None:
    """Thin lines where a body-centred tetragonal cell of two atoms is bcc and fcc."""
    if len(result.atoms) != 2:
        return
    for ratio, name in ((1.0, "bcc"), (2**0.5, "fcc")):
        if result.c_over_a[0] <= ratio <= result.c_over_a[-1]:
            axes.axvline(ratio, color=REFERENCE, linewidth=0.6, zorder=0.5)
            axes.text(
                ratio, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", size=7
            )


FIGURES: Figures = {"_map": _map_figure, "_path": _path_figure}
"""Of one structure."""

"""Figures of energy-volume curves."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.properties.eos.equation_of_state import EosCurve, EosResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def energy_volume_figure(result: EosResult) -> "Figure":
    """Energies of all states against volume, relative to the lowest minimum.

    Markers: points, joined by thin lines; thick lines: equations of state in their windows; bars: minima;
    circles: crossings.

    Args:
        result: Curves of one structure.

    Returns:
        The figure.
    """
    figure, axes = new_figure()
    lowest = result.lowest
    zero = lowest.fits[0].energy if lowest else min(np.nanmin(curve.energies) for curve in _computed(result))
    for curve, color, marker in _styled(result):
        axes.plot(
            curve.volumes, 1000 * (curve.energies - zero), marker + "-", color=color, markersize=3, linewidth=0.4,
            label=curve.state.upper(),
        )  # fmt: skip
        for fit in curve.fits:
            volumes = np.linspace(*fit.volume_range, 101)
            axes.plot(volumes, 1000 * (fit.energies(volumes) - zero), "-", color=color, linewidth=1.2)
            axes.plot(fit.volume, 1000 * (fit.energy - zero), "|", color=color, markersize=12)
    for crossing in result.crossings:
        axes.plot(
            crossing.volume,
            1000 * (crossing.energy - zero),
            "o",
            color=REFERENCE,
            fillstyle="none",
            markersize=7,
        )
    _finish(axes, "energy (meV/atom)")
    return figure


def moment_volume_figure(result: EosResult) -> "Figure":
    """Mean length of the moments of all states against volume; jumps are shaded.

    Args:
        result: Curves of one structure.

    Returns:
        The figure.
    """
    figure, axes = new_figure()
    for curve, color, marker in _styled(result):
        axes.plot(
            curve.volumes, curve.moments, marker + "-", color=color, markersize=3, linewidth=0.8,
            label=curve.state.upper(),
        )  # fmt: skip
        for jump in curve.jumps:
            axes.axvspan(*jump.volumes, color=color, alpha=0.12, linewidth=0)
    _finish(axes, "mean moment (μB)")
    return figure


def save_eos_figures(result: EosResult, stem: Path) -> list[Path]:
    """Write both figures of a structure.

    Args:
        result: Curves of one structure.
        stem: Path without ending; ``_energy`` and ``_moment`` are added.

    Returns:
        Files written; none if nothing was computed.
    """
    if not list(_computed(result)):
        return []
    return save_figure(energy_volume_figure(result), stem.with_name(stem.name + "_energy")) + save_figure(
        moment_volume_figure(result), stem.with_name(stem.name + "_moment")
    )


def _computed(result: EosResult) -> list[EosCurve]:
    return [curve for curve in result.curves if np.isfinite(curve.energies).any()]


def _styled(result: EosResult) -> Iterator[tuple[EosCurve, str, str]]:
    """Curves with a colour and a marker each."""
    return zip(_computed(result), itertools.cycle(COLORS), itertools.cycle(MARKERS), strict=False)


def _finish(axes: "Axes", label: str) -> None:
    axes.set_xlabel("volume (Å³/atom)")
    axes.set_ylabel(label)
    add_legend(axes)

"""Figures of a simulation: energies, temperatures, moments over time."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mmace_sim.plots import COLORS, REFERENCE, add_legend, new_figure
from mmace_sim.properties.md.files import column
from mmace_sim.properties.written import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _energy_figure(rows: Sequence[dict[str, Any]], n_atoms: int) -> "Figure":
    """Energies relative to the first frame, per atom: kinetic energy, potential energy and their sum."""
    figure, axes = new_figure()
    styles = (("kinetic", COLORS[3], "--"), ("potential", COLORS[2], ":"), ("total", COLORS[0], "-"))
    for name, color, style in styles:
        energies = 1000.0 * column(rows, f"energy_{name}") / n_atoms
        axes.plot(*_over_time(rows, energies - energies[0]), color=color, linestyle=style, label=name)
    return _finish(figure, axes, "energy − first frame (meV/atom)")


def _temperature_figure(rows: Sequence[dict[str, Any]], bath: float | None) -> "Figure":
    """Temperatures of atoms and of directions of moments, and that of the bath."""
    figure, axes = new_figure()
    if bath is not None:
        axes.axhline(bath, color=REFERENCE, linewidth=0.8, label="bath")
    axes.plot(*_over_time(rows, column(rows, "temperature")), color=COLORS[0], label="atoms")
    spins = column(rows, "spin_temperature")
    if np.isfinite(spins).any():
        axes.plot(*_over_time(rows, spins), color=COLORS[1], linestyle="--", label="moments")
    return _finish(figure, axes, "temperature (K)")


def _moment_figure(rows: Sequence[dict[str, Any]]) -> "Figure":
    """Mean length of the moments, and the total moment per atom."""
    figure, axes = new_figure()
    axes.plot(*_over_time(rows, column(rows, "mean_magmom")), color=COLORS[0], label="mean length")
    total = _over_time(rows, column(rows, "total_magmom"))
    axes.plot(*total, color=COLORS[1], linestyle="--", label="total moment / atoms")
    axes.set_ylim(bottom=0.0)
    return _finish(figure, axes, "moment (μB)")


def md_figures(n_atoms: int, bath: float | None) -> Figures:
    """Figures of the frames of a structure.

    Args:
        n_atoms: Number of atoms.
        bath: Temperature of the bath, in K; None without one.
    """
    return {
        "energies": partial(_energy_figure, n_atoms=n_atoms),
        "temperatures": partial(_temperature_figure, bath=bath),
        "moments": _moment_figure,
    }


def _over_time(rows: Sequence[dict[str, Any]], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times in ps and values."""
    return column(rows, "time") / 1000.0, values


def _finish(figure: "Figure", axes: "Axes", quantity: str) -> "Figure":
    axes.set(xlabel="time (ps)", ylabel=quantity)
    for line in axes.lines:
        line.set_linewidth(0.9)
    add_legend(axes)
    return figure

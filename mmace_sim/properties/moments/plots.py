"""Figures of a minimisation of moments: energy and largest magforce of every start against its steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmace_sim.plots import COLORS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.properties.moments.minimisation import MomentResult, MomentStart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED: int = len(COLORS) - 1
"""So many of the lowest minima have a colour of their own."""

LEAST_SHOWN: float = 1e-6
"""Energies closer to the end of a start than this are not drawn, in eV/atom."""


def energy_figure(result: MomentResult) -> "Figure":
    """Energy above the lowest minimum against steps, on a logarithmic scale; starts in the lowest one leave below.

    Args:
        result: Starts and minima of one structure.

    Returns:
        The figure.
    """
    figure, axes = new_figure()
    n_atoms = len(result.atoms)
    zero = min(np.nanmin(start.descent.energies) for start in _with_steps(result)) / n_atoms
    for start, style in _styled(result):
        above = start.descent.energies / n_atoms - zero
        shown = np.where(above > LEAST_SHOWN, above, np.nan)
        axes.plot(1000 * shown, linewidth=0.7, alpha=0.7, **style)
    _finish(axes, "energy above the lowest (meV/atom)")
    return figure


def magforce_figure(result: MomentResult, magforce_tol: float | None = None) -> "Figure":
    """Largest magforce against steps, on a logarithmic scale.

    Args:
        result: Starts and minima of one structure.
        magforce_tol: Where convergence is marked, in eV/μB.

    Returns:
        The figure.
    """
    figure, axes = new_figure()
    for start, style in _styled(result):
        axes.plot(start.descent.magforces.clip(min=1e-16), linewidth=0.7, alpha=0.7, **style)
    if magforce_tol is not None:
        axes.axhline(magforce_tol, color=REFERENCE, linewidth=0.8, linestyle="--")
    _finish(axes, "largest |∂E/∂m| (eV/μB)")
    return figure


def save_moment_figures(result: MomentResult, stem: Path, magforce_tol: float | None = None) -> list[Path]:
    """Write the figures of a structure.

    Args:
        result: Starts and minima of one structure.
        stem: Path without ending; ``_energy`` and ``_magforce`` are added.
        magforce_tol: Where convergence is marked, in eV/μB.

    Returns:
        Files written; none if no start made a step.
    """
    if not any(True for _ in _with_steps(result)):
        return []
    figures = {"energy": energy_figure(result), "magforce": magforce_figure(result, magforce_tol)}
    return [
        path
        for what, figure in figures.items()
        for path in save_figure(figure, stem.with_name(f"{stem.name}_{what}"))
    ]


def _with_steps(result: MomentResult) -> Iterator[MomentStart]:
    return (start for start in result.starts if np.isfinite(start.descent.energies).any())


def _styled(result: MomentResult) -> Iterator[tuple[MomentStart, dict[str, Any]]]:
    """Starts with colour, and a label for the first of each minimum, the lowest minimum on top."""
    labelled: set[int | None] = set()
    counts = {minimum.number: minimum.n_starts for minimum in result.minima}
    for start in sorted(_with_steps(result), key=lambda start: start.minimum or 10**6):
        number = None if start.minimum is None else min(start.minimum, MAX_NAMED + 1)
        style: dict[str, Any] = {"zorder": 2.0 - 0.01 * (number or 0)}
        if number is None:
            style |= {"color": REFERENCE, "linestyle": ":"}
            label = "not converged"
        elif number > MAX_NAMED:
            style["color"] = COLORS[-1]
            label = f"minima from {number} on"
        else:
            style["color"] = COLORS[number - 1]
            label = f"minimum {number} ({counts[number]} starts)"
        if number not in labelled:
            labelled.add(number)
            style["label"] = label
        yield start, style


def _finish(axes: "Axes", quantity: str) -> None:
    axes.set_yscale("log")
    axes.set_xlabel("step (evaluations of the model)")
    axes.set_ylabel(quantity)
    add_legend(axes)

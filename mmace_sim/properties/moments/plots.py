"""Figures of a minimisation of moments: energy and largest magforce of every start against its steps."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mmace_sim.plots import COLORS, REFERENCE, add_legend, new_figure
from mmace_sim.properties.moments.minimisation import MomentResult, MomentStart
from mmace_sim.properties.written import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED: int = len(COLORS) - 1
"""So many of the lowest minima have a colour of their own."""

LEAST_SHOWN: float = 1e-6
"""Energies closer to the end of a start than this are not drawn, in eV/atom."""


def moment_figures(magforce_tol: float | None = None) -> Figures:
    """Figures of a structure; none if no start made a step.

    Args:
        magforce_tol: Where convergence is marked, in eV/μB.
    """
    return {"_energy": _energy_figure, "_magforce": partial(_magforce_figure, magforce_tol=magforce_tol)}


def _energy_figure(result: MomentResult) -> "Figure | None":
    """Energy above the lowest minimum against steps, on a logarithmic scale; starts in the lowest one leave below."""
    lowest = min((np.nanmin(start.descent.energies) for start in _with_steps(result)), default=None)
    if lowest is None:
        return None
    figure, axes = new_figure()
    for start, style in _styled(result):
        above = (start.descent.energies - lowest) / len(result.atoms)
        shown = np.where(above > LEAST_SHOWN, above, np.nan)
        axes.plot(1000 * shown, linewidth=0.7, alpha=0.7, **style)
    return _finished(figure, axes, "energy above the lowest (meV/atom)")


def _magforce_figure(result: MomentResult, magforce_tol: float | None) -> "Figure | None":
    """Largest magforce against steps, on a logarithmic scale."""
    styled = list(_styled(result))
    if not styled:
        return None
    figure, axes = new_figure()
    for start, style in styled:
        axes.plot(start.descent.magforces.clip(min=1e-16), linewidth=0.7, alpha=0.7, **style)
    if magforce_tol is not None:
        axes.axhline(magforce_tol, color=REFERENCE, linewidth=0.8, linestyle="--")
    return _finished(figure, axes, "largest |∂E/∂m| (eV/μB)")


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


def _finished(figure: "Figure", axes: "Axes", quantity: str) -> "Figure":
    axes.set(yscale="log", xlabel="step (evaluations of the model)", ylabel=quantity)
    add_legend(axes)
    return figure

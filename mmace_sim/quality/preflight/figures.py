"""Figures of a preflight: the work test, lengths of moments, energies against volume, and distribution of energies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmace_sim.io.frames import Frame
from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.quality.preflight.energies import per_atom, volumes
from mmace_sim.quality.preflight.findings import PreflightReport
from mmace_sim.quality.preflight.moments import element_moments
from mmace_sim.quality.preflight.work import WorkFit

MILLI = 1000.0


def save_preflight_figures(
    report: PreflightReport, frames_by_role: Mapping[str, Sequence[Frame]], folder: Path
) -> list[Path]:
    """Draw what can be drawn, as PNG and SVG.

    Args:
        report: What was found.
        frames_by_role: The structures, per role.
        folder: Existing folder.

    Returns:
        Files written: `work_test`, `moments`, `energies`, and `energy_volume` if volumes differ.
    """
    used = {role: members for role, members in frames_by_role.items() if members}
    frames = [frame for members in used.values() for frame in members]
    written = _moments(frames, folder)
    if report.work and report.work[0].factors:
        written += _work_test(report.work[0], folder)
    if any("energy" in frame.labels for frame in frames):
        written += _energies(used, folder)
        if np.ptp(volumes(frames)) > 1e-6:
            written += _energy_volume(used, folder)
    return written


def _work_test(fit: WorkFit, folder: Path) -> list[Path]:
    figure, axes = new_figure(aspect=1.0)
    axes.scatter(MILLI * fit.work, MILLI * fit.energy, s=6, color=COLORS[0], alpha=0.4, linewidths=0)
    span = MILLI * np.array([fit.energy.min(), fit.energy.max()])
    axes.plot(span, span, color=REFERENCE, linewidth=0.8, zorder=0)
    axes.set_xlabel("work by the labels (meV)")
    axes.set_ylabel("difference of energies (meV)")
    factors = ", ".join(f"{part} {f.value:.2f} ± {f.uncertainty:.2f}" for part, f in fit.factors.items())
    axes.set_title(factors, fontsize=7)
    return save_figure(figure, folder / "work_test")


def _moments(frames: Sequence[Frame], folder: Path) -> list[Path]:
    figure, axes = new_figure()
    elements = element_moments(frames)
    bins = np.linspace(0.0, max([0.1, *(e.lengths.max() for e in elements)]), 60).tolist()
    for k, element in enumerate(elements):
        color = COLORS[k % len(COLORS)]
        axes.hist(element.lengths, bins=bins, histtype="step", color=color, label=element.symbol)
    axes.set_yscale("log")
    axes.set_xlabel("length of the moment (μB)")
    axes.set_ylabel("atoms")
    add_legend(axes)
    return save_figure(figure, folder / "moments")


def _energies(frames_by_role: Mapping[str, Sequence[Frame]], folder: Path) -> list[Path]:
    figure, axes = new_figure()
    values = {role: per_atom(members) for role, members in frames_by_role.items()}
    known = {role: x[np.isfinite(x)] for role, x in values.items()}
    lowest = min(x.min() for x in known.values() if len(x))
    bins = np.linspace(0.0, max([1e-6, *(x.max() - lowest for x in known.values() if len(x))]), 50).tolist()
    for k, (role, energies) in enumerate(known.items()):
        axes.hist(energies - lowest, bins=bins, histtype="step", color=COLORS[k % len(COLORS)], label=role)
    axes.set_yscale("log")
    axes.set_xlabel(f"energy − ({lowest:.4f}) (eV/atom)")
    axes.set_ylabel("structures")
    add_legend(axes)
    return save_figure(figure, folder / "energies")


def _energy_volume(frames_by_role: Mapping[str, Sequence[Frame]], folder: Path) -> list[Path]:
    figure, axes = new_figure()
    for k, (role, members) in enumerate(frames_by_role.items()):
        color, marker = COLORS[k % len(COLORS)], MARKERS[k % len(MARKERS)]
        x, y = volumes(members), per_atom(members)
        axes.scatter(x, y, s=8, color=color, marker=marker, alpha=0.6, linewidths=0, label=role)
    axes.set_xlabel("volume (Å³/atom)")
    axes.set_ylabel("energy (eV/atom)")
    add_legend(axes)
    return save_figure(figure, folder / "energy_volume")

"""Figures of magnetic anisotropy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mmace_sim.plots import COLORS, MARKERS, REFERENCE, new_figure
from mmace_sim.properties.anisotropy.energies import AnisotropyResult
from mmace_sim.properties.anisotropy.symmetry import crystal_direction
from mmace_sim.properties.results import known
from mmace_sim.properties.written import Figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BARS: int = 30
_HOLE = 0.35
"""Radius of the lowest energy in the figure of the sphere, relative to that of the highest."""


def _curve_figure(result: AnisotropyResult) -> "Figure | None":
    """Energies in planes, if there are any, as polar curves: harmonics as lines, computed energies as points."""
    if not result.curves:
        return None
    from matplotlib.projections.polar import PolarAxes
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(aspect=1.0)
    axes.remove()
    axes = figure.add_subplot(projection="polar")
    assert isinstance(axes, PolarAxes)
    scale = 1e6 / len(result.atoms)
    angles = np.linspace(0, 2 * np.pi, 361)
    surface = known(result.surface)
    lines = [scale * surface(curve.directions(angles)) for curve in result.curves]
    base = min(float(line.min()) for line in lines)
    looks = zip(COLORS, MARKERS, (2.6, 1.6, 0.9), strict=False)  # equal curves show side by side
    for curve, line, (color, marker, width) in zip(result.curves, lines, looks, strict=False):
        axes.plot(angles, line - base, color=color, linewidth=width, label=_plane_name(result, curve.axes))
        axes.plot(
            curve.angles, scale * curve.energies - base, marker, color=color, markersize=3, fillstyle="none"
        )
    axes.tick_params(labelsize=6, pad=1)
    axes.set_rmin(0)
    axes.set_yticks(MaxNLocator(4).tick_values(0, max(float(line.max()) for line in lines) - base)[1:])
    axes.grid(color=REFERENCE, linewidth=0.4)
    axes.set_rlabel_position(22.5)
    axes.set_title("E − lowest (μeV/atom)", fontsize=8)
    figure.legend(
        *axes.get_legend_handles_labels(), fontsize=6, frameon=False, loc="outside lower center",
        ncols=len(lines), title="plane: 0° → 90°", title_fontsize=6,
    )  # fmt: skip
    return figure


def _plane_name(result: AnisotropyResult, axes: Sequence[np.ndarray]) -> str:
    names = [crystal_direction(axis, known(result.symmetry).lattice) for axis in axes]
    return " → ".join("(" + " ".join(f"{x:.2f}" for x in axis) + ")" if name is None else name
                      for name, axis in zip(names, axes, strict=True))  # fmt: skip


def _sphere_figure(result: AnisotropyResult) -> "Figure":
    """The energy surface: distance from the centre and colour are the energy, the line is the easy direction."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LightSource, Normalize

    figure, axes = new_figure(aspect=0.85)
    axes.remove()
    axes = figure.add_subplot(projection="3d", computed_zorder=False)
    theta, phi = np.meshgrid(np.linspace(0, np.pi, 91), np.linspace(0, 2 * np.pi, 181), indexing="ij")
    n = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
    energies = (1e6 / len(result.atoms) * known(result.surface)(n.reshape(-1, 3))).reshape(theta.shape)
    energies -= energies.min()
    span = max(float(energies.max()), 1e-12)
    x, y, z = np.moveaxis(n * (_HOLE + (1 - _HOLE) * energies / span)[..., None], -1, 0)
    colors = ScalarMappable(Normalize(0, span), "cividis")
    axes.plot_surface(
        x, y, z, facecolors=colors.to_rgba(energies), rstride=2, cstride=2, linewidth=0, antialiased=False,
        lightsource=LightSource(315, 45), zorder=1, rasterized=True,
    )  # fmt: skip
    easy = known(result.easy)
    axes.plot(*np.outer([-1.15, 1.15], easy).T, color=COLORS[1], linewidth=1.0, zorder=0)
    axes.plot(*np.outer([1.0, 1.15], easy).T, color=COLORS[1], linewidth=1.0, zorder=2)
    for axis, name in zip(np.eye(3), "xyz", strict=True):
        axes.text(*(1.4 * axis), name, fontsize=7, ha="center")
    axes.set_box_aspect((1, 1, 1), zoom=1.2)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_axis_off()
    bar = figure.colorbar(colors, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("E − lowest (μeV/atom)", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    along = crystal_direction(easy, known(result.symmetry).lattice)
    axes.set_title(f"easy direction (red): {along}" if along else "easy direction: red", fontsize=7)
    return figure


def ranking_figure(entries: Sequence[dict[str, Any]]) -> "Figure":
    """MAE and easy direction of the structures of a screening, the largest on top.

    Args:
        entries: Ranked entries of the summary.

    Returns:
        The figure.
    """
    shown = [entry for entry in entries if entry.get("mae") is not None][:MAX_BARS]
    figure, axes = new_figure(aspect=max(0.35, 0.055 * len(shown) + 0.2))
    places = np.arange(len(shown))
    axes.barh(places, [entry["mae"] for entry in shown], color=COLORS[0], height=0.6)
    axes.set_yticks(
        places, [f"{entry['name']}  {entry['easy_crystal'] or ''}" for entry in shown], fontsize=6
    )
    axes.invert_yaxis()
    axes.set_xlabel("MAE (μeV/atom)")
    return figure


def sensitivity_figure(entries: Sequence[dict[str, Any]]) -> "Figure":
    """Spin–orbit sensitivity of the structures of a data set, by group, the largest median on top.

    Args:
        entries: Entries of the map; those that failed are left out.

    Returns:
        The figure.
    """
    groups: dict[str, list[float]] = {}
    for entry in entries:
        if entry.get("sensitivity") is not None:
            groups.setdefault(entry["group"], []).append(max(entry["sensitivity"], 1e-6))
    names = sorted(groups, key=lambda name: -float(np.median(groups[name])))[:MAX_BARS]
    width: Literal["page", "column"] = "page" if len(names) > 8 else "column"
    figure, axes = new_figure(
        width, aspect=max(0.45, (0.055 if width == "column" else 0.03) * len(names) + 0.3)
    )
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        values = np.array(groups[name])
        heights = place + rng.uniform(-0.25, 0.25, len(values))
        axes.plot(
            values, heights, "o", color=COLORS[4], markersize=2.5, label="structure" if place == 0 else None
        )
        axes.plot(
            np.median(values), place, "|", color=COLORS[1], markersize=10, markeredgewidth=1.5,
            label="median" if place == 0 else None,
        )  # fmt: skip
    everything = np.concatenate([np.array(groups[name]) for name in names])
    if everything.max() > 10 * everything.min():
        axes.set_xscale("log")
    axes.set_yticks(np.arange(len(names)), [f"{name} ({len(groups[name])})" for name in names], fontsize=6)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("rms change by rotations (μeV/atom)")
    figure.legend(loc="outside upper center", ncols=2, fontsize=6, frameon=False)
    return figure


FIGURES: Figures = {"anisotropy_surface": _sphere_figure, "anisotropy_planes": _curve_figure}
"""Of one structure."""

"""Curves that show at a glance what a potential says about moments: E(|m|), E(angle), E(volume), dimers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from jaxtyping import Float

from mmace_sim.plots import COLORS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.testing.prediction import MEV_PER_EV
from mmace_sim.testing.probe import Probe, single_atom, with_magmoms
from mmace_sim.testing.structures import neighbor_distance

MAX_ELEMENTS: int = 3
"""Number of elements that are drawn, those with the largest moments first."""

_STATES: dict[str, tuple[int, int, str]] = {
    "parallel": (1, 1, "-"),
    "antiparallel": (1, -1, "--"),
    "without moments": (0, 0, ":"),
}
"""Signs of the two moments, and the line."""


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        label: What it shows; "" for no entry in the legend.
        x: Abscissa, in the unit of the figure.
        energy: Energy, in the unit of the figure.
        line: Style of the line.
    """

    label: str
    x: Float[np.ndarray, " n_points"]
    energy: Float[np.ndarray, " n_points"]
    line: str = "-"


@dataclass(frozen=True)
class Drawing:
    """One figure: the curves of each element.

    Attributes:
        name: Name of the files, without ending.
        xlabel: Quantity and unit of the abscissa.
        ylabel: Quantity and unit of the energy.
        curves: Curves of each element.
        marks: Abscissa of each element that deserves a line: largest moment, cutoff radius.
        top: Largest energy to show, so that a wall does not hide the rest; None: all.
        xticks: Where to put numbers on the abscissa; None: anywhere.
    """

    name: str
    xlabel: str
    ylabel: str
    curves: list[list[Curve]]
    marks: list[float]
    top: float | None = None
    xticks: tuple[int, ...] | None = None


def save_check_plots(probe: Probe, folder: Path) -> list[Path]:
    """Draw the curves of the first `MAX_ELEMENTS` elements.

    Crystals are bcc with two atoms, at a distance guessed from covalent radii, with the moments of lowest energy
    there. They show the shape of the curves; they are not the ground state.

    Args:
        probe: The potential.
        folder: Existing folder to write ``energy_moment``, ``energy_angle``, ``energy_volume`` and ``energy_dimer``
            into, each ``.png`` and ``.svg``.
    """
    return [path for drawing in check_drawings(probe) for path in _draw(drawing, folder)]


def check_drawings(probe: Probe) -> list[Drawing]:
    """Compute the curves of the first `MAX_ELEMENTS` elements."""
    elements = probe.elements[:MAX_ELEMENTS]
    lengths = [_moment_curve(probe, z) for z in elements]
    moments = [_preferred(curve, probe.max_moment(z)) for z, curve in zip(elements, lengths, strict=True)]
    pairs = list(zip(elements, moments, strict=True))
    volumes, dimers = [_volume_curves(probe, *p) for p in pairs], [_dimer_curves(probe, *p) for p in pairs]
    cutoff = [] if probe.r_max is None else [probe.r_max]
    inside = [c.energy[c.x <= probe.max_moment(z)] for z, c in zip(elements, lengths, strict=True)]
    deepest = -min(float(curve.energy.min()) for curves in dimers for curve in curves)
    return [
        Drawing(
            "energy_moment",
            "length of all moments (μB)",
            "energy (meV/atom)",
            [[curve] for curve in lengths],
            [probe.max_moment(z) for z in elements],
            top=max(1e-3, *(float(2.0 * energy.max() - energy.min()) for energy in inside)),
        ),
        Drawing(
            "energy_angle",
            "angle between two moments (°)",
            "energy (meV/atom)",
            [[_angle_curve(probe, *p)] for p in pairs],
            [],
            xticks=(0, 60, 120, 180, 240, 300, 360),
        ),
        Drawing("energy_volume", "volume (Å³/atom)", "energy (meV/atom)", volumes, []),
        Drawing(
            "energy_dimer", "distance (Å)", "energy of the bond (eV)", dimers, cutoff, top=max(deepest, 0.2)
        ),
    ]


def _draw(drawing: Drawing, folder: Path) -> list[Path]:
    figure, axes = new_figure()
    for x in drawing.marks:
        axes.axvline(x, color=REFERENCE, linewidth=0.8, linestyle="-.", zorder=0)
    for color, curves in zip(COLORS, drawing.curves, strict=False):
        for curve in curves:
            axes.plot(
                curve.x, curve.energy, curve.line, color=color, linewidth=1.2, label=curve.label or None
            )
    axes.axhline(0.0, color=REFERENCE, linewidth=0.6, zorder=0)
    if drawing.top is not None:
        lowest = min(float(curve.energy.min()) for curves in drawing.curves for curve in curves)
        axes.set_ylim(lowest - 0.08 * (drawing.top - lowest), drawing.top)
    if drawing.xticks is not None:
        axes.set_xticks(drawing.xticks)
    axes.set_xlabel(drawing.xlabel)
    axes.set_ylabel(drawing.ylabel)
    add_legend(axes)
    return save_figure(figure, folder / drawing.name)


def _bcc(number: int, stretch: float = 1.0) -> Atoms:
    edge = 2.0 / 3.0**0.5 * stretch * neighbor_distance([number])
    return Atoms(numbers=[number] * 2, scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[edge] * 3, pbc=True)


def _moment_curve(probe: Probe, number: int) -> Curve:
    lengths = np.linspace(0.0, 1.5 * probe.max_moment(number), 76)
    crystal = _bcc(number)
    energies = probe.energies([with_magmoms(crystal, np.array([[0, 0, m]] * 2)) for m in lengths])
    return Curve(chemical_symbols[number], lengths, MEV_PER_EV * (energies - energies[0]) / 2)


def _preferred(curve: Curve, longest: float) -> float:
    """Moment of lowest energy within the range of the potential, or half of the largest where that is zero."""
    inside = curve.x <= longest
    best = float(curve.x[inside][np.argmin(curve.energy[inside])])
    return best if best > 0.1 * longest else 0.5 * longest


def _angle_curve(probe: Probe, number: int, moment: float) -> Curve:
    angles = np.linspace(0.0, 360.0, 73)
    crystal, theta = _bcc(number), np.radians(angles)
    turned = moment * np.stack([np.sin(theta), np.zeros_like(theta), np.cos(theta)], axis=1)
    energies = probe.energies([with_magmoms(crystal, np.array([[0, 0, moment], m])) for m in turned])
    label = f"{chemical_symbols[number]}, {moment:.2f} μB"
    return Curve(label, angles, MEV_PER_EV * (energies - energies[0]) / 2)


def _volume_curves(probe: Probe, number: int, moment: float) -> list[Curve]:
    crystals = [_bcc(number, stretch) for stretch in np.linspace(0.92, 1.1, 41)]
    volumes = np.array([atoms.get_volume() / len(atoms) for atoms in crystals])
    energies = {}
    for state, (first, second, _) in _STATES.items():
        magmoms = moment * np.array([[0, 0, first], [0, 0, second]], dtype=float)
        energies[state] = MEV_PER_EV * probe.energies([with_magmoms(a, magmoms) for a in crystals]) / 2
    lowest = min(float(np.min(values)) for values in energies.values())
    return [
        Curve(_state_label(probe, number, state), volumes, values - lowest, _STATES[state][2])
        for state, values in energies.items()
    ]


def _dimer_curves(probe: Probe, number: int, moment: float) -> list[Curve]:
    farthest = 6.0 if probe.r_max is None else probe.r_max + 0.5
    distances = np.linspace(0.65 * neighbor_distance([number]), farthest, 121)
    curves = []
    for state, (first, second, line) in _STATES.items():
        magmoms = moment * np.array([[0, 0, first], [0, 0, second]], dtype=float)
        dimers = [Atoms(numbers=[number] * 2, positions=[[0, 0, 0], [r, 0, 0]]) for r in distances]
        alone = probe.energies([single_atom(number, m) for m in magmoms]).sum()
        energies = probe.energies([with_magmoms(dimer, magmoms) for dimer in dimers]) - alone
        curves.append(Curve(_state_label(probe, number, state), distances, energies, line))
    return curves


def _state_label(probe: Probe, number: int, state: str) -> str:
    """Each element is explained by its first line, each other line by that of the first element."""
    if state == next(iter(_STATES)):
        return f"{chemical_symbols[number]} {state}"
    return state if number == probe.elements[0] else ""

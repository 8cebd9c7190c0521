"""What energy-volume curves say: equation of state, jumps of the moment, crossings of two states."""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float

from mmace_sim.units import EV_PER_A3_IN_GPA
from mmace_sim.workflows.magnetic_order import MOMENT_TOL

MIN_POINTS: int = 5
"""A third-order equation of state has four parameters."""

FIT_WINDOW: float = 0.12
"""Volumes further than this fraction from that of the lowest energy are not fitted: no equation holds that far."""

JUMP: float = 0.3
"""A moment jumps if it changes by more than this (μB) from one volume to the next, and by `JUMP_RATIO` times as much
as before and after."""

JUMP_RATIO: float = 2.5

ONSET_RATIO: float = 4.0
"""The same where a moment vanishes: the square root of a continuous transition is steep, but no jump."""

SAME_ENERGY: float = 1e-4
"""States closer than this (eV/atom) are taken for one and the same, which cannot cross itself."""


class EosStatus(StrEnum):
    """How the equation of state of one curve ended."""

    CONVERGED = "converged"
    INCOMPLETE = "incomplete"
    OUTSIDE = "minimum_outside_range"
    TOO_FEW = "too_few_points"
    FAILED = "failed"


@dataclass(frozen=True)
class BirchMurnaghanFit:
    """Third-order Birch–Murnaghan equation of state.

    Attributes:
        volume: V₀, in Å³/atom.
        energy: E₀, in eV/atom.
        bulk_modulus_gpa: B₀, in GPa.
        bulk_modulus_derivative: B₀′ = dB/dP.
        moment: Mean length of the moments at V₀, in μB.
        rms_error: Root mean square of what the fit leaves, in eV/atom.
        volume_range: Smallest and largest volume that were fitted, in Å³/atom.
    """

    volume: float
    energy: float
    bulk_modulus_gpa: float
    bulk_modulus_derivative: float
    moment: float
    rms_error: float
    volume_range: tuple[float, float]


@dataclass(frozen=True)
class MomentJump:
    """A jump of the moment along a curve, such as the collapse from high to low spin under compression.

    Attributes:
        volumes: The two neighbouring volumes, the smaller first, in Å³/atom.
        moments: Mean length of the moments at these volumes, in μB.
    """

    volumes: tuple[float, float]
    moments: tuple[float, float]


@dataclass(frozen=True)
class Crossing:
    """A volume where two states of a structure have the same energy.

    Attributes:
        volume: In Å³/atom.
        energy: In eV/atom.
        below: State that is lower at smaller volumes.
        above: State that is lower at larger volumes.
    """

    volume: float
    energy: float
    below: str
    above: str


def moment_jumps(
    volumes: Float[np.ndarray, " n_points"], moments: Float[np.ndarray, " n_points"]
) -> list[MomentJump]:
    """Places where the moment jumps, see `JUMP`.

    Args:
        volumes: In ascending order, in Å³/atom.
        moments: Mean length of the moments, in μB; points that are NaN are skipped.

    Returns:
        The jumps in the order of the volumes.
    """
    good = np.flatnonzero(np.isfinite(moments))
    changes = np.abs(np.diff(moments[good]))
    vanishes = np.minimum(moments[good][:-1], moments[good][1:]) < MOMENT_TOL
    around = np.pad(changes, 1)
    usual = np.where(vanishes, ONSET_RATIO, JUMP_RATIO) * np.maximum(around[:-2], around[2:])
    return [
        MomentJump((float(volumes[a]), float(volumes[b])), (float(moments[a]), float(moments[b])))
        for change, limit, (a, b) in zip(changes, usual, itertools.pairwise(good), strict=True)
        if change > max(JUMP, limit)
    ]


def branches(volumes: Float[np.ndarray, " n_points"], jumps: Sequence[MomentJump]) -> list[slice]:
    """Split a curve where the moment jumps: one equation of state holds on each side.

    Args:
        volumes: In ascending order, in Å³/atom.
        jumps: From `moment_jumps`.

    Returns:
        The pieces in the order of the volumes.
    """
    cuts = [int(np.searchsorted(volumes, jump.volumes[1])) for jump in jumps]
    return [slice(a, b) for a, b in itertools.pairwise([0, *cuts, len(volumes)])]


def fit_birch_murnaghan(
    volumes: Float[np.ndarray, " n_points"],
    energies: Float[np.ndarray, " n_points"],
    moments: Float[np.ndarray, " n_points"],
) -> tuple[EosStatus, BirchMurnaghanFit | None]:
    """Fit the third-order Birch–Murnaghan equation with pymatgen.

    Args:
        volumes: In ascending order, in Å³/atom.
        energies: In eV/atom; points that are NaN are left out.
        moments: Mean length of the moments, in μB.

    Returns:
        CONVERGED and the fit; TOO_FEW or OUTSIDE and None if there are too few points, or no minimum among them.
    """
    from pymatgen.analysis.eos import BirchMurnaghan, EOSError

    good = np.isfinite(energies)
    volumes, energies, moments = volumes[good], energies[good], moments[good]
    if len(volumes) == 0 or int(np.argmin(energies)) in (0, len(volumes) - 1):
        return EosStatus.OUTSIDE, None
    near = np.abs(volumes / volumes[np.argmin(energies)] - 1.0) <= FIT_WINDOW
    volumes, energies, moments = volumes[near], energies[near], moments[near]
    if len(volumes) < MIN_POINTS:
        return EosStatus.TOO_FEW, None
    equation = BirchMurnaghan(volumes, energies)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            equation.fit()
    except EOSError:
        return EosStatus.OUTSIDE, None
    if not volumes[0] < equation.v0 < volumes[-1] or equation.b0 <= 0:
        return EosStatus.OUTSIDE, None
    fit = BirchMurnaghanFit(
        volume=float(equation.v0),
        energy=float(equation.e0),
        bulk_modulus_gpa=float(equation.b0) * EV_PER_A3_IN_GPA,
        bulk_modulus_derivative=float(equation.b1),
        moment=float(np.interp(equation.v0, volumes, moments)),
        rms_error=float(np.sqrt(np.mean((equation.func(volumes) - energies) ** 2))),
        volume_range=(float(volumes[0]), float(volumes[-1])),
    )
    return EosStatus.CONVERGED, fit


def crossings(
    names: tuple[str, str],
    volumes: Float[np.ndarray, " n_points"],
    first: Float[np.ndarray, " n_points"],
    second: Float[np.ndarray, " n_points"],
) -> list[Crossing]:
    """Volumes where two curves cross, by linear interpolation of their difference.

    Points where they agree within `SAME_ENERGY` count as neither above nor below: states that merge do not cross.

    Args:
        names: Of the two states.
        volumes: In ascending order, in Å³/atom.
        first: Energies of the first state, in eV/atom, NaN where there is none.
        second: Energies of the second.

    Returns:
        The crossings in the order of the volumes.
    """
    difference = first - second
    clear = np.flatnonzero(np.isfinite(difference) & (np.abs(difference) > SAME_ENERGY))
    found = []
    for a, b in itertools.pairwise(clear):
        if difference[a] * difference[b] > 0:
            continue
        share = difference[a] / (difference[a] - difference[b])
        lower, upper = names if difference[a] < 0 else names[::-1]
        found.append(
            Crossing(
                volume=float(volumes[a] + share * (volumes[b] - volumes[a])),
                energy=float(first[a] + share * (first[b] - first[a])),
                below=lower,
                above=upper,
            )
        )
    return found

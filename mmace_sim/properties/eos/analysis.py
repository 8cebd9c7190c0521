"""What energy-volume curves say: jumps of the moment, pieces between them, crossings of two states."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mmace_sim.structures.magnetic_order import MOMENT_TOL

JUMP: float = 0.3
"""A moment jumps if it changes by more than this (μB) from one volume to the next, and by `JUMP_RATIO` times as much
as before and after."""

JUMP_RATIO: float = 2.5

ONSET_RATIO: float = 4.0
"""The same where a moment vanishes: the square root of a continuous transition is steep, but no jump."""

SAME_ENERGY: float = 1e-4
"""States closer than this (eV/atom) are taken for one and the same, which cannot cross itself."""


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

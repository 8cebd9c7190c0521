"""Elements without moments of their own, such as oxygen in an oxide: theirs follow from those of their neighbours."""

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from mmace_sim.errors import ConfigError
from mmace_sim.io.frames import Frame
from mmace_sim.model.config import SMALL_MOMENT, ArchitectureConfig
from mmace_sim.training.data.stream_summary import summarize

FREE_MAGFORCE: float = 1e-3
"""Magnetic forces below this (eV/μB) say that a moment was free in the calculation."""

FOLLOWERS_ROOM: float = 2.0
"""Where the wall of moments that only follow stands, in units of the largest of the data (of all heads)."""


def with_followers(
    complete: ArchitectureConfig, frames: Sequence[Frame], magforce_elements: Sequence[str] | None
) -> ArchitectureConfig:
    """The hyper-parameters, with room for moments that neighbours give to elements that have none of their own.

    Args:
        complete: Hyper-parameters of the model.
        frames: Training structures.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.

    Raises:
        ConfigError: If magnetic forces act on such moments in the data: they do not just follow.
    """
    largest = summarize(frames).largest_moments
    followers = {
        z: largest[z] for z in getattr(complete, "nonmagnetic", []) if largest.get(z, 0.0) > SMALL_MOMENT
    }
    known = [z for z in followers if magforce_elements is None or chemical_symbols[z] in magforce_elements]
    for frame in frames if known else ():
        own = np.isin(frame.atoms.numbers, known)
        if "magforces" in frame.labels and np.any(np.abs(frame.labels["magforces"][own]) > FREE_MAGFORCE):
            told = ", ".join(f"{chemical_symbols[z]} (up to {followers[z]:.2f} μB)" for z in known)
            raise ConfigError(
                f"model.nonmagnetic names {told}, but magnetic forces act on moments of such atoms in the data: they "
                "were held, and are more than what neighbours give them. Leave them out of it."
            )
    room = {
        z: FOLLOWERS_ROOM * moment
        for z, moment in followers.items()
        if complete.max_moment.get(z, 0.0) <= moment  # a larger one was given
    }
    if not room:
        return complete
    heads = {
        name: {z: moment for z, moment in own.items() if z not in room}
        for name, own in complete.heads.items()
    }
    return complete.model_copy(update={"max_moment": {**complete.max_moment, **room}, "heads": heads})

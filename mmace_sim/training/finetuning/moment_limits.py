"""Moments of data that are above what a model was made for."""

import logging
from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from mmace_sim.errors import DataError
from mmace_sim.io.frames import Frame
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.moment_limits import TOLERANCE
from mmace_sim.training.data.stream_summary import summarize

logger = logging.getLogger(__name__)


def check_moments(base: MagneticModel, sets: Sequence[Sequence[Frame]]) -> None:
    """Refuse moments that a model has no energy for, and warn of those where its functions no longer change.

    Args:
        base: Model that is to be trained on.
        sets: Structures, all of which it knows the elements of.

    Raises:
        DataError: If its energy grows without bounds above its largest moments, and some structures have larger ones.
    """
    limit = np.zeros(120)
    reference = base.reference
    limit[base.elements] = getattr(reference, "wall_moment", reference.max_moment).cpu().numpy()
    n_above = 0
    found: dict[int, float] = {}
    for frames in sets:
        summary = summarize(frames)
        large = summary.moments > limit[summary.elements] * (1.0 + TOLERANCE)
        n_above += len(np.unique(summary.owners[large]))
        for z in np.unique(summary.elements[large]).tolist():
            found[z] = max(found.get(z, 0.0), summary.largest_moments[z])
    if not n_above:
        return
    n = sum(map(len, sets))
    limits = ", ".join(f"{chemical_symbols[z]} {limit[z]:.2f}, in the data {m:.2f}" for z, m in found.items())
    if base.moment_limits:
        raise DataError(
            f"{n_above} of {n} structures have moments above the largest that the model was made for (μB: {limits}), "
            "where its energy means nothing. Leave them out, or let moments saturate: `mmace-sim convert MODEL "
            "new.safetensors --saturate`, and fine-tune that."
        )
    logger.warning(
        "%d of %d structures have moments above the largest that the model was made for (μB: %s): it cannot "
        "tell them from that moment, and a wall rises above it. Train from scratch if they matter.",
        n_above,
        n,
        limits,
    )

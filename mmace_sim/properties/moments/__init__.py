"""Minima of the energy over the moments at fixed atoms: many structures, many random starts, one batch."""

from mmace_sim.properties.moments.minimisation import (
    MomentMinimum,
    MomentResult,
    MomentSearch,
    MomentStart,
    minimize_moments,
)

__all__ = ["MomentMinimum", "MomentResult", "MomentSearch", "MomentStart", "minimize_moments"]

"""Minima of the energy over the moments at fixed atoms: many structures, many random starts, one batch."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "MOMENT_MINIMA": ".declaration",
    "MomentSearchSettings": ".declaration",
    "MomentMinimum": ".minimisation",
    "MomentResult": ".minimisation",
    "MomentSearch": ".minimisation",
    "MomentStart": ".minimisation",
    "minimize_moments": ".minimisation",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

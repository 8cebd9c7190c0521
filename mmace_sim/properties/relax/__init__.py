"""Relaxation of positions, cell and magnetic moments."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "RELAX": ".declaration",
    "RelaxSettings": ".declaration",
    "Relaxation": ".relaxation",
    "relax": ".structures",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

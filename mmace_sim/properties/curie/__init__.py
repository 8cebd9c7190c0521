"""Ordering temperatures by Monte Carlo, and the Heisenberg models that they come from."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "CURIE": ".declaration",
    "CurieSettings": ".declaration",
    "Curie": ".temperatures",
    "CurieResult": ".temperatures",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

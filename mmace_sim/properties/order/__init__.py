"""Which magnetic order is lowest: many starts of many structures, relaxed in one batch, ranked and compared."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "ORDER": ".declaration",
    "OrderSettings": ".declaration",
    "OrderResult": ".search",
    "OrderSearch": ".search",
    "OrderStatus": ".search",
    "RelaxedOrder": ".search",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

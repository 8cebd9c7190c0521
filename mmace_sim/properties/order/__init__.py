"""Which magnetic order is lowest: many starts of many structures, relaxed in one batch, ranked and compared."""

from mmace_sim.properties.order.search import OrderResult, OrderSearch, OrderStatus, RelaxedOrder

__all__ = ["OrderResult", "OrderSearch", "OrderStatus", "RelaxedOrder"]

"""Exchange constants of collinear magnets by three routes: second derivatives, four states, spin spirals."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "CONVENTION": ".declaration",
    "EXCHANGE": ".declaration",
    "ExchangeSettings": ".declaration",
    "Exchange": ".constants",
    "ExchangeResult": ".constants",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

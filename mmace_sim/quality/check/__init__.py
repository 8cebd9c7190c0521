"""A physics check of a magnetic potential: every identity that it must obey, and by how much it does not."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "CHECKS": ".checks",
    "CheckReport": ".checks",
    "CheckSettings": ".declaration",
    "CheckStatus": ".checks",
    "check_model": ".checks",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

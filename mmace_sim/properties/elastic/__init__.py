"""Elastic constants of many magnetic crystals in one batch, from the stresses of strained cells."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "ELASTIC": ".declaration",
    "ElasticSettings": ".declaration",
    "ElasticResult": ".constants",
    "ElasticStatus": ".constants",
    "ElasticTensorCalculation": ".constants",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

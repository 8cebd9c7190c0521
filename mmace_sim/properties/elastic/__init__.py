"""Elastic constants of many magnetic crystals in one batch, from the stresses of strained cells."""

from mmace_sim.properties.elastic.constants import ElasticResult, ElasticStatus, ElasticTensorCalculation

__all__ = ["ElasticResult", "ElasticStatus", "ElasticTensorCalculation"]

"""Magnetic MACE models for ASE: re-export of `mmace_sim.calculator`."""

from mmace_sim.calculator import MMACECalculator
from mmace_sim.graph.atoms import get_magmoms, set_magmoms

__all__ = ["MMACECalculator", "get_magmoms", "set_magmoms"]

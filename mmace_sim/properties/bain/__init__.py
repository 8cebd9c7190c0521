"""Energy maps over c/a and volume: the Bain path between bcc and fcc in several magnetic states, in one batch."""

from mmace_sim.properties.bain.minima import BainMinimum, find_minima
from mmace_sim.properties.bain.path import BainMap, BainPath, BainResult, lowest_along_path

__all__ = ["BainMap", "BainMinimum", "BainPath", "BainResult", "find_minima", "lowest_along_path"]

"""Energy maps over c/a and volume: the Bain path between bcc and fcc in several magnetic states, in one batch."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "BAIN": ".declaration",
    "BainSettings": ".declaration",
    "BainMap": ".path",
    "BainPath": ".path",
    "BainResult": ".path",
    "lowest_along_path": ".path",
    "BainMinimum": ".minima",
    "find_minima": ".minima",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

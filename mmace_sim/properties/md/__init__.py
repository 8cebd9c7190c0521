"""Molecular dynamics of atoms and magnetic moments."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "MD": ".declaration",
    "MDSettings": ".declaration",
    "Checkpoint": ".frames",
    "Snapshot": ".frames",
    "MDResult": ".simulation",
    "MDStatus": ".simulation",
    "MolecularDynamics": ".dynamics",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

"""Phonons of many magnetic crystals: phonopy's displacements, all of them in one batch."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "PHONONS": ".declaration",
    "PhononsSettings": ".declaration",
    "PhononResult": ".finite_displacements",
    "Phonons": ".finite_displacements",
    "force_constants": ".finite_displacements",
    "phonopy_forces": ".finite_displacements",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

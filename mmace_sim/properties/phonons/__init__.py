"""Phonons of many magnetic crystals: phonopy's displacements, all of them in one batch."""

from mmace_sim.properties.phonons.force_constants import (
    PhononResult,
    Phonons,
    force_constants,
    phonopy_forces,
)

__all__ = ["PhononResult", "Phonons", "force_constants", "phonopy_forces"]

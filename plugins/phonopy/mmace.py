"""Magnetic MACE models for phonopy: re-export from `mmace_sim`."""

from mmace_sim.properties.phonons import force_constants, phonopy_forces
from mmace_sim.torchsim import MagneticMaceModel, initialize_state, state_to_phonopy

__all__ = ["MagneticMaceModel", "force_constants", "initialize_state", "phonopy_forces", "state_to_phonopy"]

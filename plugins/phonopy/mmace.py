"""Magnetic MACE models for phonopy: re-export of `mmace_sim.torchsim`."""

from mmace_sim.torchsim import MagneticMaceModel, initialize_state, state_to_phonopy

__all__ = ["MagneticMaceModel", "initialize_state", "state_to_phonopy"]

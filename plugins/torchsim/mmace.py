"""Magnetic MACE models for TorchSim: re-export of `mmace_sim.torchsim`."""

from mmace_sim.torchsim import (
    MagneticMaceModel,
    initialize_state,
    state_to_atoms,
    state_to_phonopy,
    state_to_structures,
)

__all__ = [
    "MagneticMaceModel",
    "initialize_state",
    "state_to_atoms",
    "state_to_phonopy",
    "state_to_structures",
]

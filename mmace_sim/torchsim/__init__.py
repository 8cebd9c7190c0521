"""Magnetic models in TorchSim: model, state, batched relaxation of moments."""

from mmace_sim.base import hosts as _hosts  # noqa: F401 - before any module that imports torch_sim
from mmace_sim.torchsim.adiabatic import AdiabaticModel
from mmace_sim.torchsim.fire import DegreesOfFreedom, magnetic_fire_init, magnetic_fire_step
from mmace_sim.torchsim.langevin_spins import MomentDynamics
from mmace_sim.torchsim.memory import estimate_max_memory_scaler
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.spin_dynamics import spin_lattice_init, spin_lattice_step
from mmace_sim.torchsim.state import (
    initialize_state,
    state_to_atoms,
    state_to_phonopy,
    state_to_structures,
)

__all__ = [
    "AdiabaticModel",
    "DegreesOfFreedom",
    "MagneticMaceModel",
    "MomentDynamics",
    "estimate_max_memory_scaler",
    "initialize_state",
    "magnetic_fire_init",
    "magnetic_fire_step",
    "spin_lattice_init",
    "spin_lattice_step",
    "state_to_atoms",
    "state_to_phonopy",
    "state_to_structures",
]

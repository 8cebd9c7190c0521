"""Magnetic models in TorchSim: model, state, batched relaxation of moments.

Names are imported on first use: TorchSim takes a second.
"""

from importlib import import_module
from typing import Any

_LAZY = {
    "MagneticMaceModel": "mmace_sim.torchsim.model",
    "initialize_state": "mmace_sim.torchsim.state",
    "state_magmoms": "mmace_sim.torchsim.state",
    "state_to_atoms": "mmace_sim.torchsim.state",
    "state_to_phonopy": "mmace_sim.torchsim.state",
    "state_to_structures": "mmace_sim.torchsim.state",
}

__all__ = [
    "MagneticMaceModel",
    "initialize_state",
    "state_magmoms",
    "state_to_atoms",
    "state_to_phonopy",
    "state_to_structures",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mmace_sim.torchsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

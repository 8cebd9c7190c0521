"""Magnetic MACE potentials: batched relaxation of positions, cell and magnetic moments.

Heavy imports happen on first use, so that ``import mmace_sim`` stays fast.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("mmace-sim")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0+unknown"

_LAZY = {
    "load_model": "mmace_sim.model.checkpoint",
    "save_model": "mmace_sim.model.checkpoint",
    "MagneticMACE": "mmace_sim.model.magnetic_mace",
    "ModelConfig": "mmace_sim.model.config",
    "PaperMMACE": "mmace_sim.architectures.paper_mmace",
    "PaperConfig": "mmace_sim.architectures.paper_mmace",
    "FoundationMMACE": "mmace_sim.architectures.foundation_mmace",
    "from_foundation": "mmace_sim.interop.foundation",
    "MMACECalculator": "mmace_sim.calculator",
    "relax": "mmace_sim.properties.relax.structures",
    "phonopy_forces": "mmace_sim.properties.phonons",
    "force_constants": "mmace_sim.properties.phonons",
}
_MODULES = ("torchsim", "testing", "units")

__all__ = ["__version__", *_LAZY, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _MODULES:
        return import_module(f"mmace_sim.{name}")
    raise AttributeError(f"module 'mmace_sim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Magnetic anisotropy: energies of moments turned as a body, constants, easy axes, maps of data sets."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "ANISOTROPY": ".declaration",
    "CONVENTION": ".declaration",
    "AnisotropySettings": ".declaration",
    "SensitivitySettings": ".declaration",
    "Anisotropy": ".energies",
    "AnisotropyResult": ".energies",
    "Sensitivity": ".sensitivity",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)

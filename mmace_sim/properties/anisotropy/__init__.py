"""Magnetic anisotropy: energies of moments turned as a body, constants, easy axes, maps of data sets."""

from mmace_sim.properties.anisotropy.energies import CONVENTION, Anisotropy, AnisotropyResult

__all__ = ["CONVENTION", "Anisotropy", "AnisotropyResult"]

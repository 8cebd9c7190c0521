"""Constants that settings have as defaults; this module imports nothing."""

ELECTRON_G: float = 2.00231930436
"""Magnitude of the g factor of the free electron (CODATA 2018); γ = g/ħ = 3.042 rad/fs per eV/μB, 28.02 GHz/T."""

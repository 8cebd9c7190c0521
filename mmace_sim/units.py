"""Conversion factors, CODATA 2018, and the units of everything inside the package: eV, Å, μB, eV/Å³, K."""

from ase.units import GPa as _EV_PER_A3_PER_GPA

EV_PER_A3_IN_GPA: float = 1.0 / _EV_PER_A3_PER_GPA
"""1 eV/Å³ in GPa (160.2177)."""

BOHR_MAGNETON_EV_PER_T: float = 5.7883818060e-5
"""μB in eV/T: a magforce of 1 eV/μB is a field of 1/μB = 17276 T."""

BOLTZMANN_EV_PER_K: float = 8.617333262e-5
"""k_B in eV/K."""

"""
The model in ASE
================

``MMACECalculator`` has the results energy, free_energy, forces, stress, magmoms and magforces. It works
under ASE's optimisers, filters and molecular dynamics. Moments are those of the ``Atoms`` object; when
they change, the calculator computes anew.
"""

# %%
# A structure with moments
# ------------------------

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

import mmace_sim

atoms = bulk("Fe", "bcc", a=2.80, cubic=True)
atoms.set_initial_magnetic_moments([2.0, 2.0])
atoms.calc = mmace_sim.MMACECalculator(model="default")
print(f"energy          {atoms.get_potential_energy():.4f} eV")
print(f"magnetic forces {atoms.calc.results['magforces'][0]} eV/μB")

# %%
# Relax the cell with ASE
# -----------------------
# At fixed moments. For moments that relax too, use ``mmace_sim.relax``.

FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=100)
print(f"lattice constant {atoms.cell.lengths()[0]:.3f} Å")

# %%
# Energy against the moment
# -------------------------
# Lengthen the moments of the ferromagnet and of the antiferromagnet at a fixed lattice constant.


def energies(signs: list[int], lengths: np.ndarray) -> np.ndarray:
    """Energies per atom in meV, at moments of the given signs and lengths in μB."""
    structure = bulk("Fe", "bcc", a=2.83, cubic=True)
    structure.calc = atoms.calc
    values = []
    for length in lengths:
        structure.set_initial_magnetic_moments(length * np.array(signs))
        values.append(structure.get_potential_energy() / len(structure))
    return 1000 * np.array(values)


lengths = np.linspace(0.0, 2.8, 15)
ferro, antiferro = energies([1, 1], lengths), energies([1, -1], lengths)

figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
axes.plot(lengths, ferro - ferro[0], "-", color="0.1", label="ferromagnetic")
axes.plot(lengths, antiferro - ferro[0], "--", color="0.5", label="antiferromagnetic")
axes.set_xlabel("moment (μB)")
axes.set_ylabel("energy (meV/atom)")
axes.legend(frameon=False)
plt.show()

# %%
# Turn one moment
# ---------------
# The magnetic force is minus the slope of this curve.

angles = np.linspace(0, np.pi, 13)
structure = bulk("Fe", "bcc", a=2.83, cubic=True)
del structure.arrays["initial_magmoms"]
structure.calc = atoms.calc
turned = []
for angle in angles:
    structure.set_initial_magnetic_moments(2.2 * np.array([[0, 0, 1], [np.sin(angle), 0, np.cos(angle)]]))
    turned.append(1000 * structure.get_potential_energy() / len(structure))

figure, axes = plt.subplots(figsize=(4.5, 3.0), layout="constrained")
axes.plot(np.degrees(angles), np.array(turned) - turned[0], "o-", color="0.2", markersize=4)
axes.set_xlabel("angle between the moments (degrees)")
axes.set_ylabel("energy (meV/atom)")
plt.show()

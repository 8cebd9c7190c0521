"""
Magnetic anisotropy: easy axes and what it costs to leave them
==============================================================

Turn all moments of a crystal together and look at the energy. Only spin–orbit coupling makes it change, by μeV to meV
per atom. From the command line: ``mmace-sim anisotropy``.
"""

# %%
# Moments in a crystal field
# --------------------------
# A toy whose constants are given: K1 = 80 μeV, K2 = −30 μeV, and 15 μeV for the four-fold term in the basal plane. The
# tetragonal crystal decides what is fitted. The planes in the figure are energies that no fit has seen.

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.plots import COLORS
from mmace_sim.properties.anisotropy import CONVENTION, Anisotropy
from mmace_sim.properties.anisotropy.symmetry import crystal_direction
from mmace_sim.testing import HeisenbergModel, SingleIonModel


def tetragonal(ratio, magmoms=(2.0, 2.0)):
    """Body-centred cell of iron with a given c/a, at constant volume."""
    atoms = bulk("Fe", cubic=True, a=2.83)
    a = 2.83 * ratio ** (-1 / 3)
    atoms.set_cell([a, a, ratio * a], scale_atoms=True)
    set_magmoms(atoms, magmoms)
    return atoms


print(CONVENTION)
toy = SingleIonModel(uniaxial=(80e-6, -30e-6), basal=15e-6)
(result,) = Anisotropy(toy, magmoms="fixed", curve_points=12).run([tetragonal(1.1)])
print(f"{result.symmetry.system}, {result.constants.form}: easy {result.constants.easy}")
for name, value in result.constants.values.items():
    if name != "K0":
        print(
            f"  {name:7s} {1e6 * value / len(result.atoms):8.3f} μeV/atom  {result.constants.functions[name]}"
        )
print(
    f"easy {crystal_direction(result.easy, result.symmetry.lattice)}, MAE {1e6 * result.mae / 2:.2f} μeV/atom"
)
print(f"harmonics miss the energies in the planes by {1e6 * result.curve_error / 2:.0e} μeV/atom")

# %%
# The energy as a surface, and in three planes
# --------------------------------------------

theta, phi = np.meshgrid(np.linspace(0, np.pi, 61), np.linspace(0, 2 * np.pi, 121), indexing="ij")
n = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
energy = 1e6 / 2 * result.surface(n.reshape(-1, 3)).reshape(theta.shape)
energy -= energy.min()
figure = plt.figure(figsize=(7.0, 3.4), layout="constrained")
axes = figure.add_subplot(121, projection="3d")
radius = 0.35 + 0.65 * energy / energy.max()
axes.plot_surface(
    *np.moveaxis(n * radius[..., None], -1, 0), facecolors=plt.cm.cividis(energy / energy.max()), linewidth=0
)
axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
axes.set_box_aspect((1, 1, 1))
axes.set_axis_off()
axes.set_title("radius and colour: energy", fontsize=8)
polar = figure.add_subplot(122, projection="polar")
angles = np.linspace(0, 2 * np.pi, 181)
base = 1e6 / 2 * min(result.surface(curve.directions(angles)).min() for curve in result.curves)
for curve, color, width in zip(result.curves, COLORS, (3.0, 1.8, 1.0), strict=False):
    names = [crystal_direction(axis, result.symmetry.lattice) for axis in curve.axes]
    polar.plot(
        angles,
        1e6 / 2 * result.surface(curve.directions(angles)) - base,
        color=color,
        linewidth=width,
        label=" → ".join(names),
    )
    polar.plot(
        curve.angles, 1e6 / 2 * curve.energies - base, "o", color=color, markersize=3, fillstyle="none"
    )
polar.set_title("E − lowest (μeV/atom)", fontsize=8)
polar.tick_params(labelsize=7)
polar.set_rlabel_position(55)
polar.legend(fontsize=6, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
plt.show()

# %%
# Screening
# ---------
# Spins that like to point along the bonds of a body-centred crystal (a pseudo-dipolar interaction K): the anisotropy
# follows from the sum over neighbours, K1 = K m² (c² − a²)/r² for the eight nearest ones. Stretched along c the axis is
# easy, flattened it is hard, and the cube has none. All crystals and directions are one batch.

strength, moment = 1e-4, 2.0
ratios = np.array([0.92, 0.96, 1.0, 1.04, 1.08])
model = HeisenbergModel(pseudo_dipolar=strength, r_on=2.54, r_max=2.55)
crystals = [tetragonal(ratio) for ratio in ratios]
results = Anisotropy(model, magmoms="fixed", directions=20, curve_points=0, max_ell=4, form="uniaxial").run(
    crystals
)
found = np.array([1e6 * r.constants.values["K1"] / 2 for r in results])
known = []
for atoms in crystals:
    a, _, c = atoms.cell.lengths()
    known.append(1e6 * strength * moment**2 * (c**2 - a**2) / (a**2 / 2 + c**2 / 4))
print(f"largest difference from the lattice sum: {np.abs(found - known).max():.0e} μeV/atom")

figure, axes = plt.subplots(figsize=(4.5, 3.0), layout="constrained")
axes.axhline(0, color="0.6", linewidth=0.8)
axes.plot(ratios, known, "-", color=COLORS[0], label="lattice sum")
axes.plot(ratios, found, "o", color=COLORS[1], fillstyle="none", label="fit of energies")
axes.set_xlabel("c/a")
axes.set_ylabel("K1 (μeV/atom)")
axes.legend(frameon=False, fontsize=8)
plt.show()

# %%
# Sign of the answer
# ------------------
# An antiferromagnet turns its staggered moment; a model without spin–orbit coupling is refused.

(antiferro,) = Anisotropy(model, magmoms="fixed", directions=20, curve_points=0).run(
    [tetragonal(1.08, (2.0, -2.0))]
)
print(f"antiferromagnet: K1 = {1e6 * antiferro.constants.values['K1'] / 2:.2f} μeV/atom")
try:
    Anisotropy("default")
except ValueError as error:
    print(error)

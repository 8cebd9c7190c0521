"""
Phonons of magnetic crystals
============================

phonopy displaces the atoms, the model gives the forces, all displacements of all crystals in one batch. Moments
are frozen, or follow the atoms. The same from the command line is ``mmace-sim phonons``.
"""

# %%
# Two magnetic states in one batch
# --------------------------------
# Each crystal is relaxed, displaced and evaluated at frozen and at relaxed moments.

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from phonopy import Phonopy
from phonopy.phonon.band_structure import get_band_qpoints_and_path_connections
from phonopy.structure.atoms import PhonopyAtoms

import mmace_sim
from mmace_sim.plots import COLORS
from mmace_sim.properties.phonons import Phonons, phonopy_forces
from mmace_sim.properties.phonons.output import draw_bands, mark_path

model = mmace_sim.load_model("default")
crystals = []
for moment in (2.2, 0.0):
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True)
    atoms.set_initial_magnetic_moments([moment, moment])
    crystals.append(atoms)
ferromagnet, nonmagnet = Phonons(model, supercell=(4, 4, 4), magmoms="relaxed").run(crystals)
for name, result in (("ferromagnetic", ferromagnet), ("non-magnetic", nonmagnet)):
    phonon = result.phonon
    print(f"{name}: a = {result.atoms.cell.lengths()[0]:.3f} Å, ", end="")
    print(f"{len(phonon.displacements)} displacement in {len(phonon.supercell)} atoms. {result.message}")

# %%
# Frozen and relaxed moments
# --------------------------
# ``result.phonon`` is phonopy's own object, so that any path and any property of phonopy is at hand. Where atoms
# move towards each other their moments shrink, which costs less than compressing frozen moments: longitudinal
# waves become softer. At H, P and N nothing changes, because there the displacements around each atom cancel.
# The points are what is known; how far each of the embedded models is from them, and why, is on the page on phonons.

points = {"Γ": (0, 0, 0), "H": (0.5, -0.5, 0.5), "P": (0.25, 0.25, 0.25), "N": (0, 0, 0.5)}
labels = ["Γ", "H", "P", "Γ", "N"]
path, connections = get_band_qpoints_and_path_connections(
    [[points[label] for label in labels]],
    npoints=51,
    rec_lattice=np.linalg.inv(ferromagnet.phonon.primitive.cell),
)


def bands(result, constants):
    """Frequencies along the path for given force constants."""
    result.phonon.force_constants = constants
    return result.phonon.run_band_structure(path, labels=labels, path_connections=connections)


relaxed_constants = ferromagnet.phonon.force_constants
frozen = bands(ferromagnet, ferromagnet.frozen).frequencies
relaxed = bands(ferromagnet, relaxed_constants)
figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
draw_bands(axes, relaxed, frozen, color=COLORS[1], style="--", label="frozen moments")
draw_bands(axes, relaxed, relaxed.frequencies, color=COLORS[0], label="relaxed moments")
mark_path(axes, relaxed)
ends = [segment[-1] for segment in relaxed.distances]
known = {ends[0]: [8.5], ends[1]: [7.2], ends[3]: [4.5, 6.5, 9.0]}
for x, values in known.items():
    axes.plot([x] * len(values), values, "o", color=COLORS[2], markersize=5, clip_on=False)
axes.plot([], [], "o", color=COLORS[2], markersize=5, label="experiment and PBE")
axes.set_ylim(0, 14)
axes.set_ylabel("frequency (THz)")
axes.legend(frameon=False, loc="upper center", ncols=3, fontsize=8)
plt.show()

# %%
# Without moments bcc iron falls apart
# ------------------------------------
# Imaginary frequencies are drawn as negative ones. What is unstable, and where, is in ``result.imaginary``.

for mode in nonmagnet.imaginary[:3]:
    print(mode)

figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
unstable = bands(nonmagnet, nonmagnet.phonon.force_constants)
draw_bands(axes, unstable, unstable.frequencies, color=COLORS[0])
mark_path(axes, unstable)
axes.set_ylabel("frequency (THz)")
plt.show()

# %%
# In a phonopy script of your own
# -------------------------------
# One line gives the forces of all displacements. Moments are the ``magnetic_moments`` of the cell: numbers for
# collinear ones, vectors for others. phonopy carries them to the supercells and uses the magnetic symmetry.

a = 2.83
cell = PhonopyAtoms(
    ["Fe", "Fe"],
    cell=a * np.eye(3),
    scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]],
    magnetic_moments=[2.2, 2.2],
)
phonon = Phonopy(cell, supercell_matrix=[2, 2, 2], primitive_matrix="I")
phonon.generate_displacements(distance=0.01)
phonopy_forces(phonon, model)
phonon.produce_force_constants(show_drift=False)
print("H point:", phonon.run_qpoints([points["H"]]).frequencies[0].round(2), "THz")

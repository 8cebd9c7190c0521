"""
Relax many structures in one batch
==================================

Positions, cells and magnetic moments of all starting structures of iron are relaxed together. Each has
its own time step and leaves the batch when it has converged, so the result of one does not depend on the
others.
"""

# %%
# Read the structures
# -------------------
# The reader takes anything that ASE reads, pymatgen's JSON, and mCIF with its moments. Structures without
# moments are an error in Python; here they get high-spin ferromagnetic ones, as on the command line.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.io.collection import load_structures
from mmace_sim.structures.initial_moments import initial_magmoms
from mmace_sim.structures.magnetic_order import classify_order

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
loaded = load_structures([here / "structures"])
for entry in loaded:
    moments, note = initial_magmoms(entry.atoms)
    set_magmoms(entry.atoms, moments)
    if note:
        print(f"{entry.name}: {note}")

# %%
# Relax
# -----
# One call. Every structure gets a status: ``converged``, or what stopped it.

result = mmace_sim.relax([entry.atoms for entry in loaded], model="default", max_steps=300)
print(f"{result.n_converged} of {len(result)} converged")

# %%
# Compare
# -------
# Energies per atom, relative to the lowest one.

energies = np.array([r.energy / len(r.atoms) for r in result]) * 1000
energies -= np.nanmin(energies)
for entry, r, energy in zip(loaded, result, energies, strict=True):
    before, after = classify_order(get_magmoms(r.initial_atoms)), classify_order(get_magmoms(r.atoms))
    length = np.linalg.norm(get_magmoms(r.atoms), axis=1).mean()
    print(f"{entry.name:22s} {r.status:10s} {r.steps:4d} steps", end=" ")
    print(f"{energy:7.1f} meV/atom {length:4.2f} μB  {before} → {after}")

# %%
# The energies of the orders at a glance.

order = np.argsort(energies)
figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
axes.barh(range(len(order)), energies[order], color="0.45")
axes.set_yticks(range(len(order)), [Path(loaded[k].name).stem for k in order], fontsize=8)
axes.invert_yaxis()
axes.set_xlabel("energy above the lowest (meV/atom)")
plt.show()

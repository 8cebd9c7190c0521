"""
Minima of magnetic moments from random starts
=============================================

Which arrangement of moments is lowest while the atoms stay where they are? Many random starts of many structures are
relaxed in one batch. The same from the command line is ``mmace-sim moments``.
"""

# %%
# A frustrated magnet whose answer is known
# -----------------------------------------
# Classical unit spins with antiferromagnetic exchange on the triangular lattice, E = + ``|J|`` Σ s_i·s_j over unique
# nearest neighbours: the ground state has −3/2 ``|J|`` per site, neighbours at 120°.

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.plots import COLORS
from mmace_sim.properties.moments import minimize_moments
from mmace_sim.testing import HeisenbergModel

J, distance = 0.02, 2.5
toy = HeisenbergModel(exchange=-J, landau=(0.0, 0.0), morse=(0.0, 1.4, distance), energy_per_atom=0.0)
cell = [[distance, 0, 0], [-distance / 2, distance * np.sqrt(3) / 2, 0], [0, 0, 10]]
lattice = Atoms("Fe", cell=cell, pbc=True).repeat((6, 6, 1))
set_magmoms(lattice, np.ones(len(lattice)))
(frustrated,) = minimize_moments(lattice, toy, starts=64, fix_magnitude=True, stability=False)
lowest = frustrated.minima[0]
print(
    f"{frustrated.n_converged} of {len(frustrated.starts)} starts converged, {frustrated.n_lowest} to the lowest"
)
print(
    f"E = {lowest.energy / J:.6f} |J| per site, {lowest.order}, magnetic space group {lowest.symmetry.bns_number}"
)

# %%
# Iron, lengths and directions together
# -------------------------------------
# Each moment of bcc and fcc iron is turned by a random angle up to 180° about a random axis and scaled by 0 to 1.5, and
# all are relaxed until ``|∂E/∂m|`` < 10⁻⁶ eV/μB, by L-BFGS and by FIRE.

model = mmace_sim.load_model("default")
crystals = [bulk("Fe", kind, a=a, cubic=True) for kind, a in (("bcc", 2.83), ("fcc", 3.55))]
for atoms in crystals:
    atoms.arrays.pop("initial_magmoms", None)
    set_magmoms(atoms, np.full(len(atoms), 2.2))
results = {
    solver: minimize_moments(crystals, model, starts=12, solver=solver, magforce_tol=1e-6)
    for solver in ("lbfgs", "fire")
}
for solver, (bcc, fcc) in results.items():
    for name, result in (("bcc", bcc), ("fcc", fcc)):
        steps = np.mean([start.steps for start in result.starts])
        print(f"{solver:5s} {name}: {result.n_converged} of 12 converged, {steps:.0f} evaluations on average")
        for minimum in result.minima:
            lengths = np.linalg.norm(minimum.magmoms, axis=1)
            print(
                f"   {minimum.n_starts:2d} starts: {minimum.energy:.5f} eV/atom, |m| {lengths.mean():.3f} μB, ",
                end="",
            )
            print(
                f"{minimum.order}, {minimum.symmetry.bns_number}, {'stable' if minimum.is_stable else 'saddle'}"
            )

# %%
# The magnetic space group tells the order: Pn-3m′ (224.113) is the tetrahedral one of fcc, four moments along the four
# cube diagonals. Which one is lowest depends on the volume and on the model. How energy and magforces fall:

figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for (solver, (_, fcc)), color in zip(results.items(), COLORS, strict=False):
    zero = min(start.descent.energies.min() for start in fcc.starts)
    for k, start in enumerate(fcc.starts):
        label = {"lbfgs": "L-BFGS", "fire": "FIRE"}[solver] if k == 0 else None
        above = 1000 * (start.descent.energies - zero) / 4
        axes[0].plot(np.where(above > 1e-3, above, np.nan), color=color, linewidth=0.7, label=label)
        axes[1].plot(start.descent.magforces, color=color, linewidth=0.7, label=label)
axes[0].set_ylabel("energy above the lowest (meV/atom)")
axes[1].set_ylabel("largest |∂E/∂m| (eV/μB)")
axes[1].axhline(1e-6, color="0.6", linestyle="--", linewidth=0.8)
for panel in axes:
    panel.set_yscale("log")
    panel.set_xlabel("evaluation of the model")
    panel.legend(frameon=False)
plt.show()

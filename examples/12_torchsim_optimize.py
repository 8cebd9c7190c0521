"""
Relax moments with TorchSim's own runner
========================================

``ts.optimize`` takes an optimiser as a pair of functions, and ours moves positions, cell **and** moments. Or give a
stock optimiser a model whose moments follow. ``mmace_sim.relax`` uses the same pieces and adds convergence and failures
per structure; these are for scripts that already have a TorchSim loop.
"""

# %%
# Structures, a model that counts, and what converged means
# ---------------------------------------------------------
# TorchSim stops when the energy changes little, unless told otherwise, and knows nothing of magnetic forces.

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch_sim as ts
from ase.build import bulk

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.plots import COLORS
from mmace_sim.torchsim import (
    AdiabaticModel,
    MagneticMaceModel,
    initialize_state,
    magnetic_fire_init,
    magnetic_fire_step,
    state_to_atoms,
)
from mmace_sim.units import EV_PER_A3_IN_GPA


class CountingModel(MagneticMaceModel):
    """Counts how often it is evaluated."""

    evaluations = 0

    def forward(self, state, **kwargs):
        self.evaluations += 1
        return super().forward(state, **kwargs)


structures = []
for lattice, a, moments in (
    ("bcc", 2.75, [1.8, 1.8]),
    ("bcc", 2.90, [2.5, 2.5]),
    ("fcc", 3.55, [1.5, 1.5, -1.5, -1.5]),
):
    atoms = bulk("Fe", lattice, a=a, cubic=True)
    set_magmoms(atoms, moments)
    atoms.rattle(0.02, seed=1)
    structures.append(atoms)


def converged(state, last_energy=None):  # noqa: ARG001 - TorchSim passes it
    """Forces below 0.01 eV/Å, stress below 0.1 GPa, magnetic forces below 0.005 eV/μB, for each system."""

    def largest(vectors):
        zeros = torch.zeros(state.n_systems, dtype=state.dtype)
        return zeros.scatter_reduce(0, state.system_idx, vectors.norm(dim=1), "amax")

    stress = state.stress.abs().amax(dim=(1, 2)) * EV_PER_A3_IN_GPA
    return (largest(state.forces) < 0.01) & (stress < 0.1) & (largest(state.magforces) < 0.005)


model = mmace_sim.load_model("default")

# %%
# Our optimiser: everything at once
# ---------------------------------

joint = CountingModel(model)
together = ts.optimize(
    system=initialize_state(structures),
    model=joint,
    optimizer=(magnetic_fire_init, magnetic_fire_step),
    convergence_fn=converged,
    steps_between_swaps=1,
    max_steps=300,
)

# %%
# A stock optimiser and moments that follow
# -----------------------------------------
# For optimisers and cell filters that we do not have. It takes more evaluations, because moments are converged at
# every step.

follows = CountingModel(model)
adiabatic = ts.optimize(
    system=initialize_state(structures),
    model=AdiabaticModel(follows, magforce_tol=0.005),
    optimizer=ts.Optimizer.fire,
    init_kwargs={"cell_filter": ts.CellFilter.frechet},
    convergence_fn=converged,
    steps_between_swaps=1,
    max_steps=300,
)

# %%
# The same minima
# ---------------

reference = mmace_sim.relax(structures, model=model)
print(f"evaluations of the batch: {joint.evaluations} together, {follows.evaluations} with a stock optimiser")
for k, start in enumerate(structures):
    print(f"{start.get_chemical_formula()}, start {start.get_volume() / len(start):.2f} Å³/atom")
    found = (
        ("together", state_to_atoms(together)[k], together.energy[k]),
        ("stock", state_to_atoms(adiabatic)[k], adiabatic.energy[k]),
        ("mmace_sim.relax", reference[k].atoms, reference[k].energy),
    )
    for name, atoms, energy in found:
        moment = np.linalg.norm(get_magmoms(atoms), axis=1).mean()
        print(f"  {name:16s} {float(energy) / len(atoms):.4f} eV/atom", end="")
        print(f"  {atoms.get_volume() / len(atoms):.3f} Å³/atom  {moment:.3f} μB")

figure, axes = plt.subplots(figsize=(4, 2.6), layout="constrained")
counts = {
    "positions, cell and\nmoments together": joint.evaluations,
    "stock optimiser,\nmoments follow": follows.evaluations,
}
axes.barh(list(counts), list(counts.values()), color=COLORS[0])
axes.invert_yaxis()
axes.set_xlabel("evaluations of the model")
plt.show()

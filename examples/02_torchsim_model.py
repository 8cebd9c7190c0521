"""
The model in TorchSim
=====================

``MagneticMaceModel`` is an ordinary TorchSim model whose state carries moments. TorchSim's own optimisers
and integrators work with it. They move atoms and cells; the moments stay as they are, unless you relax
them with ``mmace_sim.relax``.
"""

# %%
# States with moments
# -------------------
# TorchSim's own conversion drops moments. ``mmace_sim.torchsim.initialize_state`` keeps them, together
# with velocities and constraints, and ``state_to_atoms`` brings them back.

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch_sim as ts
from ase.build import bulk

import mmace_sim

model = mmace_sim.torchsim.MagneticMaceModel(mmace_sim.load_model("default"))

structures = []
for a in (2.75, 2.83, 2.91):
    atoms = bulk("Fe", "bcc", a=a, cubic=True)
    atoms.rattle(0.03, seed=1)
    atoms.set_initial_magnetic_moments([2.2] * len(atoms))
    structures.append(atoms)
state = mmace_sim.torchsim.initialize_state(structures)
print(f"{state.n_systems} structures, {state.n_atoms} atoms")

# %%
# Energies of the batch
# ---------------------

output = model(state)
for key in ("energy", "forces", "stress", "magforces"):
    print(f"{key:10s} {tuple(output[key].shape)}")

# %%
# Relax positions and cells at fixed moments
# ------------------------------------------

relaxed = ts.optimize(
    system=state,
    model=model,
    optimizer=ts.Optimizer.fire,
    init_kwargs={"cell_filter": ts.CellFilter.frechet},
    convergence_fn=ts.generate_force_convergence_fn(force_tol=0.01),
    max_steps=200,
)
for atoms in mmace_sim.torchsim.state_to_atoms(relaxed):
    moment = atoms.get_initial_magnetic_moments()[0]
    print(f"volume {atoms.get_volume() / len(atoms):.3f} Å³/atom, moment {moment} μB")

# %%
# Molecular dynamics
# ------------------
# 100 steps of 1 fs at 300 K, at fixed moments. The energy fluctuates with the heat bath; the moments do
# not change.

supercell = bulk("Fe", "bcc", a=2.83, cubic=True) * (2, 2, 2)
supercell.set_initial_magnetic_moments([2.2] * len(supercell))
hot = mmace_sim.torchsim.initialize_state([supercell])
temperatures = []
for _ in range(10):
    hot = ts.integrate(
        system=hot,
        model=model,
        integrator=ts.Integrator.nvt_langevin,
        n_steps=10,
        temperature=300.0,
        timestep=0.001,
    )
    temperatures.append(float(ts.calc_temperature(velocities=hot.velocities, masses=hot.masses)))
moments = hot.magnetic_moments
assert torch.allclose(moments, torch.as_tensor([[0.0, 0.0, 2.2]], dtype=moments.dtype))

figure, axes = plt.subplots(figsize=(4.5, 3.0), layout="constrained")
axes.plot(10 * np.arange(1, 11), temperatures, color="0.2")
axes.set_xlabel("time (fs)")
axes.set_ylabel("temperature (K)")
plt.show()

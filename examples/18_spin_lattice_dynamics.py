"""
Spin-lattice dynamics
=====================

Moments that precess and are damped, coupled to atoms that move. From the command line it is
``mmace-sim md --spins llg``; here with two toys whose answers are known, and with iron.
"""

# %%
# A moment in a field
# -------------------
# A moment turns counter-clockwise about a field at 28.025 GHz/T. The integrator is a pair ``(init, step)`` like any of
# TorchSim's; the settings of a step are keywords.

import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.plots import COLORS
from mmace_sim.properties.md import MolecularDynamics
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel, initialize_state
from mmace_sim.torchsim.langevin_spins import MomentDynamics
from mmace_sim.torchsim.spin_dynamics import (
    FS_PER_TIME,
    spin_lattice_init,
    spin_lattice_step,
)
from mmace_sim.torchsim.zeeman import ZeemanModel
from mmace_sim.units import BOHR_MAGNETON_EV_PER_T

torch.set_num_threads(1)
tesla, timestep = 200.0, 1.0
free = MagneticMaceModel(HeisenbergModel(exchange=0.0, landau=(0.0, 0.0)))
model = ZeemanModel(free, (0, 0, tesla))
atom = Atoms("Fe", cell=[10] * 3, pbc=True)
set_magmoms(atom, [[1.0, 0.0, 1.0]])
state, angles = spin_lattice_init(initialize_state([atom]), model, kT=0.0), []
for _ in range(180):
    state = spin_lattice_step(state, model, dt=timestep / FS_PER_TIME, kT=0.0, moments=MomentDynamics())
    x, y, z = state.magnetic_moments[0].tolist()
    angles.append(np.arctan2(y, x))
turns = np.ptp(np.unwrap(angles)) / (2 * np.pi) / (timestep * (len(angles) - 1))
print(f"{1e6 * turns / tesla:.3f} GHz/T, |m|² = {x * x + y * y + z * z:.15f}")

# %%
# A paramagnet in a field
# -----------------------
# Moments that know only the field and the bath: ⟨cos θ⟩ is Langevin's function coth x − 1/x of x = ``|m|`` B/k_BT.

grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), axis=-1).reshape(-1, 3)
gas = Atoms(f"Fe{len(grid)}", 10.0 * grid, cell=[50] * 3, pbc=True)
directions = np.random.default_rng(0).normal(size=(len(gas), 3))
set_magmoms(gas, 2.0 * directions / np.linalg.norm(directions, axis=1, keepdims=True))
arguments, cosines = np.array([0.5, 1.0, 2.0, 4.0, 8.0]), []
field = 1000.0
model = ZeemanModel(free, (0, 0, field))
bath_energies = 2.0 * field * BOHR_MAGNETON_EV_PER_T / torch.as_tensor(arguments)
state = spin_lattice_init(initialize_state([gas] * len(arguments)), model, kT=0.0)
for step in range(120):
    state = spin_lattice_step(
        state,
        model,
        dt=1.0 / FS_PER_TIME,
        kT=bath_energies,
        moments=MomentDynamics(damping=1.0, tolerance=1e-3),
    )
    if step >= 50:
        cosines.append(state.magnetic_moments[:, 2].reshape(len(arguments), -1).mean(dim=1).numpy() / 2.0)
for x, found, exact in zip(
    arguments, np.mean(cosines, axis=0), 1 / np.tanh(arguments) - 1 / arguments, strict=True
):
    print(f"x = {x:.1f}: ⟨cos θ⟩ = {found:.3f}, Langevin {exact:.3f}")

# %%
# Iron
# ----
# Sixteen atoms of bcc iron with the default model, in a bath of 300 K that acts on atoms and moments. Everything starts
# cold: atoms on their sites, moments parallel.

iron = bulk("Fe", "bcc", a=2.83, cubic=True) * (2, 2, 2)
set_magmoms(iron, np.full(len(iron), 2.25))
settings = {"spins": "llg", "timestep": 1.0, "n_steps": 80, "record_every": 4}
(bath,) = MolecularDynamics(ensemble="nvt", temperature=300, damping=0.2, friction=50.0, **settings).run(iron)

# %%
# At constant energy nothing but rounding and the time step changes the total energy, while atoms and moments exchange
# theirs. It goes on from the last frame, velocities and moments included.

(alone,) = MolecularDynamics(ensemble="nve", **settings).run(bath.atoms)
energy = 1000 * alone.column("energy_total") / len(iron)
print(f"total energy at constant energy: ± {energy.std():.4f} meV/atom")

figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for result, shift in ((bath, 0.0), (alone, bath.column("time")[-1])):
    time = result.column("time") + shift
    axes[0].plot(time, result.column("temperature"), color=COLORS[0], label=None if shift else "atoms")
    axes[0].plot(
        time,
        result.column("spin_temperature"),
        color=COLORS[1],
        linestyle="--",
        label=None if shift else "moments",
    )
    axes[1].plot(time, result.column("total_magmom"), color=COLORS[0])
axes[0].axhline(300, color="0.6", linewidth=0.8)
axes[0].set_ylabel("temperature (K)")
axes[0].legend(frameon=False, fontsize=8)
axes[1].set_ylabel("total moment (μB/atom)")
for panel in axes:
    panel.set_xlabel("time (fs)")
    panel.axvline(bath.column("time")[-1], color="0.6", linestyle=":", linewidth=0.8)
plt.show()

# %%
# Left of the dotted line with the bath, right of it without. Sixteen atoms are few: temperatures of single frames
# fluctuate by a fifth for the atoms and more for the moments, whose estimate is a sample. Classical moments at 300 K
# lose more magnetisation than iron does, because real magnons are bosons.

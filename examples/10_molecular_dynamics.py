"""
Molecular dynamics with moments that follow
===========================================

Spins are faster than atoms: at every step of the dynamics the moments are relaxed until ``|∂E/∂m|`` < 1e-3 eV/μB, as in
Fig. 13 of the paper on magnetic MACE (arXiv:2604.08143). ``AdiabaticModel`` does that inside of the model, so that
every integrator of TorchSim works with it.
"""

# %%
# Two copies of the same crystal
# ------------------------------
# 54 atoms of bcc iron at 600 K; the same velocities for both.

import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch_sim as ts
from ase.build import bulk
from ase.md.velocitydistribution import Stationary, thermalize_momenta

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.plots import COLORS
from mmace_sim.torchsim import AdiabaticModel, MagneticMaceModel, initialize_state

torch.set_num_threads(1)
crystal = bulk("Fe", "bcc", a=2.83, cubic=True) * (3, 3, 3)
set_magmoms(crystal, np.full(len(crystal), 2.25))
thermalize_momenta(crystal, 600, rng=np.random.default_rng(0))
Stationary(crystal)

# %%
# Constant energy, step by step
# -----------------------------
# ``initialize_state`` keeps velocities, so that the integrator starts from them. The two simulations take turns, which
# makes the comparison of their times fair on a machine that does other things too.


class Simulation:
    """NVE dynamics in steps of 1 fs, with what is to be compared."""

    def __init__(self, model: ts.models.interface.ModelInterface) -> None:
        self.model = model
        self.state = ts.nve_init(initialize_state([crystal]), model, kT=0.0)
        self.energies, self.moments, self.magforces, self.seconds = [], [], [], []

    def step(self) -> None:
        start = time.perf_counter()
        self.state = ts.nve_step(self.state, self.model, dt=0.001 * ts.units.MetalUnits.time)
        self.seconds.append(time.perf_counter() - start)
        kinetic = ts.calc_kinetic_energy(masses=self.state.masses, momenta=self.state.momenta)
        self.energies.append(1000 * float(self.state.energy[0] + kinetic) / len(crystal))
        self.moments.append(self.state.magnetic_moments.norm(dim=1).numpy())
        self.magforces.append(float(self.state.magforces.norm(dim=1).max()))


magnetic = MagneticMaceModel(mmace_sim.load_model("default"))
runs = {
    "fixed moments": Simulation(magnetic),
    "moments follow": Simulation(AdiabaticModel(magnetic, magforce_tol=1e-3)),
}
N_STEPS = 150
for _ in range(N_STEPS):
    for simulation in runs.values():
        simulation.step()

# %%
# The energy is conserved just as well, at about twice the cost: moments are extrapolated from the last two steps, and
# one correction is enough for most steps. The drift is the slope of the energy; over so short a time it is what
# remains of the oscillation of the integrator.

times = np.arange(1, N_STEPS + 1) / 1000  # ps
for name, simulation in runs.items():
    drift = np.polyfit(times, simulation.energies, 1)[0]
    print(
        f"{name}: drift {drift:+.3f} meV/atom/ps, noise {np.std(simulation.energies):.4f} meV/atom, ", end=""
    )
    print(f"largest |∂E/∂m| {max(simulation.magforces):.1e} eV/μB")
fixed, follow = runs.values()
ratio = np.sum(follow.seconds) / np.sum(fixed.seconds)
print(f"cost of moments that follow: {ratio:.2f} times that of fixed ones")

figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for color, (name, simulation) in zip(COLORS, runs.items(), strict=False):
    axes[0].plot(
        1000 * times, np.array(simulation.energies) - simulation.energies[0], color=color, label=name
    )
axes[0].set_xlabel("time (fs)")
axes[0].set_ylabel("total energy (meV/atom)")
axes[0].legend(frameon=False, fontsize=8)
moments = np.array(follow.moments)
axes[1].plot(1000 * times, moments[:, :6], color="0.75", linewidth=0.8)
axes[1].plot(1000 * times, moments.mean(axis=1), color=COLORS[1], label="mean of all atoms")
axes[1].set_xlabel("time (fs)")
axes[1].set_ylabel("moment (μB)")
axes[1].legend(frameon=False, fontsize=8)
plt.show()

# %%
# A heat bath, and a trajectory that keeps the moments
# ----------------------------------------------------
# With ``ts.integrate``. Two things must be asked for: TorchSim's trajectories do not store moments unless they are
# among ``prop_calculators``, and round everything to single precision unless told otherwise.

adiabatic = AdiabaticModel(magnetic, magforce_tol=1e-3)
file = Path(tempfile.mkdtemp()) / "iron.h5"
properties = {
    "magnetic_moments": lambda state: state.magnetic_moments,
    "temperature": lambda state: ts.calc_temperature(velocities=state.velocities, masses=state.masses),
}
final = ts.integrate(
    system=initialize_state([crystal]),
    model=adiabatic,
    integrator=ts.Integrator.nvt_langevin,
    n_steps=60,
    temperature=600.0,
    timestep=0.001,
    trajectory_reporter=ts.TrajectoryReporter(
        file,
        state_frequency=5,
        prop_calculators={5: properties},
        trajectory_kwargs={"coerce_to_float32": False},
    ),
)
with ts.TorchSimTrajectory(file, mode="r") as trajectory:
    stored = trajectory.get_array("magnetic_moments")
    temperatures = trajectory.get_array("temperature")
print(f"{len(stored)} frames of moments, shape {stored.shape[1:]}, {stored.dtype}")
lengths = np.linalg.norm(stored, axis=-1)
print(f"last frame: {lengths[-1].mean():.3f} ± {lengths[-1].std():.3f} μB at {temperatures[-1].item():.0f} K")

# %%
# Back to ASE, with moments and velocities, to go on with anything else:

(atoms,) = mmace_sim.torchsim.state_to_atoms(final)
print(atoms.get_initial_magnetic_moments()[0], atoms.get_velocities()[0])

# %%
# What this is not: moments at their minimum are moments at zero temperature. Directions do not fluctuate, so that
# nothing of this dynamics knows of the Curie temperature.

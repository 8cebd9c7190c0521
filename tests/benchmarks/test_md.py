"""Molecular dynamics with frozen, following and precessing moments against that with an ordinary MACE.

$ OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_md.py --override-ini addopts=

All simulations take turns, step by step, in one process. MMACE_BENCH_ATOMS=16,54 and MMACE_BENCH_STEPS=24,10 choose the
rows and the number of steps of each.
"""

import os
import statistics
import time
import warnings

import model_sizes as ms
import numpy as np
import torch
import torch_sim as ts
from ase.build import bulk
from record import MODEL, write

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import AdiabaticModel, MagneticMaceModel, initialize_state
from mmace_sim.torchsim.langevin_spins import MomentDynamics
from mmace_sim.torchsim.spin_dynamics import (
    FS_PER_TIME,
    kinetic_energy,
    spin_lattice_init,
    spin_lattice_step,
)
from mmace_sim.units import BOLTZMANN_EV_PER_K

ATOMS = [int(n) for n in os.environ.get("MMACE_BENCH_ATOMS", "16,54").split(",")]
N_STEPS = [int(n) for n in os.environ.get("MMACE_BENCH_STEPS", "60,20").split(",")]
TEMPERATURE = 600.0


def iron(n_atoms, tilt=0.1, length=2.25):
    """Bcc iron whose moments are tilted by some degrees."""
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(ms.SUPERCELLS[n_atoms])
    m = np.array([0.0, 0.0, 1.0]) + tilt * np.random.default_rng(0).normal(size=(len(atoms), 3))
    set_magmoms(atoms, length * m / np.linalg.norm(m, axis=1, keepdims=True))
    return atoms


def ordinary_mace(config):
    """mace-torch's ScaleShiftMACE with the sizes of a model of ours, random weights, behind TorchSim's interface."""
    from torch_sim.models.mace import MaceModel

    ms.SIZES["ours"] = {
        "hidden_irreps": config.hidden_irreps, "num_interactions": config.num_interactions, "r_max": config.r_max,
    }  # fmt: skip
    ms.N_NEIGHBORS[config.r_max] = config.avg_num_neighbors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = ms.yardstick("ours", torch.float64, radial_mlp=config.radial_mlp)
        return MaceModel(network, device=torch.device("cpu"), dtype=torch.float64)


def simulations(n_atoms):
    """Name, first state, step of each."""
    model = MagneticMaceModel(mmace_sim.load_model(MODEL))
    state = initialize_state([iron(n_atoms)])
    kT, dt = TEMPERATURE * BOLTZMANN_EV_PER_K, 1.0 / FS_PER_TIME
    mace = ordinary_mace(model.model.config)
    llg = {
        "llg": MomentDynamics(),
        "llg, sib": MomentDynamics(solver="sib"),
        "llg, lengths": MomentDynamics(damping=0.1, length_friction=0.05),
    }
    first = spin_lattice_init(state, model, kT=kT)
    yield "mace", ts.nve_init(initialize_state(first), mace, kT=kT), lambda s: ts.nve_step(s, mace, dt=dt)
    yield "frozen", first, lambda s: spin_lattice_step(s, model, dt=dt, kT=kT)
    follower = AdiabaticModel(model, magforce_tol=1e-3)
    yield (
        "adiabatic",
        spin_lattice_init(state, follower, kT=kT),
        lambda s: spin_lattice_step(s, follower, dt=dt, kT=kT),
    )
    for name, moments in llg.items():
        yield (
            name,
            first.clone(),
            lambda s, m=moments: spin_lattice_step(s, model, dt=dt, kT=kT, moments=m),
        )


def test_cost():
    rows = []
    torch.set_num_threads(1)
    for n_atoms, n_steps in zip(ATOMS, N_STEPS, strict=True):
        runs = list(simulations(n_atoms))
        states, steps = {name: s for name, s, _ in runs}, {name: step for name, _, step in runs}
        seconds, residuals = {name: [] for name in states}, {name: [] for name in states}
        for _ in range(n_steps):
            for name, step in steps.items():
                before = time.process_time()
                states[name] = step(states[name])
                seconds[name].append(time.process_time() - before)
                residuals[name].append(float(getattr(states[name], "moment_residual", torch.zeros(1))))
        late = slice(n_steps // 6, None)
        row = {"atoms": n_atoms, "steps": n_steps, "timestep_fs": 1.0}
        for name in states:
            ratios = [a / b for a, b in zip(seconds[name][late], seconds["mace"][late], strict=True)]
            evaluations = getattr(states[name], "moment_evaluations", None)
            row[name] = {
                "cpu_ms_per_step": round(1e3 * statistics.median(seconds[name][late]), 2),
                "ratio": round(statistics.median(ratios), 2),
                "largest_moment_residual": max(residuals[name][late]),
                "evaluations_of_magforces_per_step": None
                if evaluations is None
                else round(float(evaluations) / n_steps, 2),
            }
        rows.append(row)
    write("md", {"temperature": TEMPERATURE, "rows": rows, "solvers": solvers()})


def solvers(n_fs=60):
    """Energy drift against evaluations of the magforces: 32 atoms of the Heisenberg toy with exchange that decays."""
    toy = MagneticMaceModel(HeisenbergModel(exchange=0.005, exchange_decay=1.5, landau=(-0.4, 0.05)))
    atoms = bulk("Fe", "fcc", a=3.5355, cubic=True) * (2, 2, 2)
    m = np.array([0.0, 0.0, 1.0]) + 0.3 * np.random.default_rng(0).normal(size=(32, 3))
    set_magmoms(atoms, 2.0 * m / np.linalg.norm(m, axis=1, keepdims=True))
    kT = 300 * BOLTZMANN_EV_PER_K
    rows = []
    for name, dt, moments in (
        ("midpoint", 1.0, MomentDynamics()),
        ("midpoint", 0.5, MomentDynamics()),
        ("sib", 1.0, MomentDynamics(solver="sib")),
        ("sib", 0.5, MomentDynamics(solver="sib")),
        ("sib", 0.25, MomentDynamics(solver="sib")),
    ):
        state, energies = spin_lattice_init(initialize_state([atoms]), toy, kT=kT), []
        n_steps = int(n_fs / dt)
        for _ in range(n_steps):
            state = spin_lattice_step(state, toy, dt=dt / FS_PER_TIME, kT=kT, moments=moments)
            energies.append(1000 * float(state.energy + kinetic_energy(state)) / 32)
        times = dt * np.arange(n_steps) / 1000
        rows.append(
            {
                "solver": name,
                "timestep_fs": dt,
                "evaluations_per_fs": round(float(state.moment_evaluations) / n_fs, 2),
                "drift_mev_per_atom_ps": round(float(np.polyfit(times, energies, 1)[0]), 4),
                "noise_mev_per_atom": round(float(np.std(energies)), 5),
                "largest_change_of_length": float((state.magnetic_moments.norm(dim=1) - 2.0).abs().max()),
            }
        )
    return rows

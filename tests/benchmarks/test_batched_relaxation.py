"""64 small structures in one batch against the same 64 one after another with ASE's FIRE and our calculator."""

import os
import statistics
import time

import numpy as np
import torch
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from record import write

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.units import EV_PER_A3_IN_GPA

MODEL = os.environ.get("MMACE_BENCHMARK_MODEL", "default")
N_STRUCTURES = 64
N_REPEATS = 3
FMAX, STRESS_TOL, MAX_STEPS = 0.01, 0.1, 300


def structures():
    rng = np.random.default_rng(0)
    out = []
    for k in range(N_STRUCTURES):
        atoms = bulk("Fe", "bcc", a=rng.uniform(2.78, 2.90), cubic=True)
        moments = [2.2, 2.2]
        if k % 2:  # fcc as a body-centred tetragonal cell
            a = rng.uniform(3.48, 3.60)
            atoms.set_cell([a / 2**0.5, a / 2**0.5, a], scale_atoms=True)
            moments = [1.8, -1.8]
        strain = rng.uniform(-0.02, 0.02, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.rattle(0.04, seed=k)
        set_magmoms(atoms, [[0, 0, m] for m in moments])
        out.append(atoms)
    return out


def one_by_one(images, calculator):
    """ASE's FIRE over positions and cell until our criteria hold."""
    n_converged, steps = 0, []
    for start in images:
        atoms = start.copy()
        atoms.calc = calculator
        optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
        for _ in optimizer.irun(fmax=0.0, steps=MAX_STEPS):
            force = np.linalg.norm(atoms.get_forces(), axis=1).max()
            stress = np.abs(atoms.get_stress()).max() * EV_PER_A3_IN_GPA
            if force <= FMAX and stress <= STRESS_TOL:
                n_converged += 1
                break
        steps.append(optimizer.nsteps)
    return n_converged, steps


def test_batched_relaxation():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    images = structures()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = mmace_sim.load_model(MODEL, device=device)
    calculator = mmace_sim.MMACECalculator(model=model)
    settings = {"fmax": FMAX, "stress_tol": STRESS_TOL, "max_steps": MAX_STEPS}
    mmace_sim.relax(images[:2], model, magmoms="fixed", max_steps=2)  # warm up
    one_by_one(images[:1], calculator)
    rows = {"batch_fixed": [], "one_by_one_fixed": [], "batch_joint": []}
    facts = {}
    for _ in range(N_REPEATS):
        start = time.perf_counter()
        result = mmace_sim.relax(images, model, magmoms="fixed", **settings)
        rows["batch_fixed"].append(time.perf_counter() - start)
        facts["batch_fixed"] = (result.n_converged, [item.steps for item in result])
        start = time.perf_counter()
        facts["one_by_one_fixed"] = one_by_one(images, calculator)
        rows["one_by_one_fixed"].append(time.perf_counter() - start)
        start = time.perf_counter()
        result = mmace_sim.relax(images, model, magmoms="joint", **settings)
        rows["batch_joint"].append(time.perf_counter() - start)
        facts["batch_joint"] = (result.n_converged, [item.steps for item in result])
    ratios = [b / a for a, b in zip(rows["batch_fixed"], rows["one_by_one_fixed"], strict=True)]
    write(
        "batched_relaxation",
        {
            "model": model.metadata.get("name", MODEL),
            "n_structures": N_STRUCTURES,
            "settings": settings,
            "seconds_median": {key: round(statistics.median(values), 2) for key, values in rows.items()},
            "seconds": {key: [round(v, 2) for v in values] for key, values in rows.items()},
            "speedup_median": round(statistics.median(ratios), 2),
            "speedup_of_each_run": [round(r, 2) for r in ratios],
            "n_converged": {key: value[0] for key, value in facts.items()},
            "median_steps": {key: statistics.median(value[1]) for key, value in facts.items()},
        },
    )

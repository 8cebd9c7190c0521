"""64 and 1,000 small structures in one batch against the 64 one after another with ASE's FIRE and our calculator.

With MMACE_BENCHMARK_BASELINE=FOLDER, a checkout of an older commit, its relaxation runs in turn with this one (its
`mmace-fe-pbe`, in a process of its own):

    git worktree add /tmp/older 80bba42
    MMACE_BENCHMARK_BASELINE=/tmp/older python -m pytest tests/benchmarks/test_batched_relaxation.py --override-ini addopts=
"""

import json
import os
import pickle
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from record import MODEL, write

import mmace_sim
from mmace_sim.base.allocator import keep_freed_memory
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.units import EV_PER_A3_IN_GPA

N_STRUCTURES = 64
N_REPEATS = int(os.environ.get("MMACE_BENCHMARK_REPEATS", "3"))
N_MANY = 1000
FMAX, STRESS_TOL, MAX_STEPS = 0.01, 0.1, 300
MODES = ("fixed", "joint", "adiabatic")
BASELINE = os.environ.get("MMACE_BENCHMARK_BASELINE")
OLDER = """
import json, pickle, sys, time
import torch, mmace_sim
torch.set_num_threads(1)
images, modes, settings = pickle.load(sys.stdin.buffer)
model = mmace_sim.load_model("mmace-fe-pbe")
mmace_sim.relax(images[:2], model, magmoms="fixed", max_steps=2)
found = {}
for name in modes:
    start = time.process_time()
    results = mmace_sim.relax(images, model, magmoms=name, **settings)
    seconds, steps = time.process_time() - start, sorted(r.steps for r in results)
    found[name] = {"seconds": seconds, "converged": results.n_converged, "median_steps": steps[len(steps) // 2]}
print(json.dumps(found))
"""
"""What the older commit runs."""


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


def older(images, modes, settings):
    """Processor time, converged structures and steps of the older commit, by what becomes of the moments."""
    done = subprocess.run(
        [sys.executable, "-c", OLDER],
        env=os.environ | {"PYTHONPATH": BASELINE, "OMP_NUM_THREADS": "1"},
        input=pickle.dumps((images, modes, settings)),
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def test_batched_relaxation():
    """Rounds that run everything one after the other; processor time, as other programs may run beside it."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    keep_freed_memory()  # as the command line does
    images = structures()
    many = (images * (N_MANY // N_STRUCTURES + 1))[:N_MANY]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = time.perf_counter if device == "cuda" else time.process_time
    model = mmace_sim.load_model(MODEL, device=device)
    calculator = mmace_sim.MMACECalculator(model=model)
    settings = {"fmax": FMAX, "stress_tol": STRESS_TOL, "max_steps": MAX_STEPS}
    mmace_sim.relax(images[:2], model, magmoms="fixed", max_steps=2)  # warm up
    one_by_one(images[:1], calculator)
    seconds: dict[str, list[float]] = {}
    facts = {}

    def run(name, relax):
        start = clock()
        result = relax()
        seconds.setdefault(name, []).append(clock() - start)
        converged, steps = (
            result if isinstance(result, tuple) else (result.n_converged, [r.steps for r in result])
        )
        facts[name] = {"converged": converged, "median_steps": statistics.median(steps)}
        return result

    for _ in range(N_REPEATS):
        run("one_by_one_fixed", lambda: one_by_one(images, calculator))
        found = {
            magmoms: run(
                f"batch_{magmoms}", lambda m=magmoms: mmace_sim.relax(images, model, magmoms=m, **settings)
            )
            for magmoms in MODES
        }
        for magmoms, row in older(images, MODES, settings).items() if BASELINE else ():
            seconds.setdefault(f"older_{magmoms}", []).append(row.pop("seconds"))
            facts[f"older_{magmoms}"] = row
    run("batch_of_1000_fixed", lambda: mmace_sim.relax(many, model, magmoms="fixed", **settings))
    differences = [
        (
            1e3 * abs(a.energy - b.energy) / len(a.atoms),
            float(np.abs(get_magmoms(a.atoms) - get_magmoms(b.atoms)).max()),
        )
        for a, b in zip(found["joint"], found["adiabatic"], strict=True)
    ]
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    write(
        "batched_relaxation",
        {
            "model": model.metadata.get("name", MODEL),
            "n_structures": N_STRUCTURES,
            "n_many": N_MANY,
            "settings": settings,
            "clock": clock.__name__,
            "seconds_median": {name: round(value, 2) for name, value in middle.items()},
            "seconds": {name: [round(v, 2) for v in values] for name, values in seconds.items()},
            "speedup": {
                "batch_fixed": round(middle["one_by_one_fixed"] / middle["batch_fixed"], 1),
                "batch_of_1000_fixed": round(
                    middle["one_by_one_fixed"] / N_STRUCTURES / (middle["batch_of_1000_fixed"] / N_MANY), 1
                ),
            },
            "against_older": {
                magmoms: round(middle[f"older_{magmoms}"] / middle[f"batch_{magmoms}"], 2)
                for magmoms in (MODES if BASELINE else ())
            },
            "adiabatic_over_joint": round(middle["batch_adiabatic"] / middle["batch_joint"], 2),
            "adiabatic_against_joint": {
                "energy_mev_per_atom": round(max(e for e, _ in differences), 4),
                "moment_mu_b": round(max(m for _, m in differences), 4),
            },
            "facts": facts,
        },
    )

"""Elastic constants of many structures in one batch, against one structure after another, and against ASE."""

import os
import statistics
import time

import numpy as np
import torch
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from record import MODEL, write

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.elastic import ElasticTensorCalculation
from mmace_sim.units import EV_PER_A3_IN_GPA

N_STRUCTURES = int(os.environ.get("MMACE_BENCHMARK_N", "200"))
N_ONE_BY_ONE = int(os.environ.get("MMACE_BENCHMARK_N_ONE_BY_ONE", "40"))
FMAX, STRESS_TOL, MAGFORCE_TOL, MAX_STEPS = 1e-3, 0.05, 2e-4, 500
STRAINS = (0.005, 0.01)


def structures(n):
    """Ferromagnetic bcc, antiferromagnetic tetragonal and non-magnetic hcp iron, none at its minimum."""
    rng = np.random.default_rng(0)
    out = []
    for k in range(n):
        if k % 3 == 0:
            atoms, moments = bulk("Fe", "bcc", a=rng.uniform(2.78, 2.88), cubic=True), [2.2, 2.2]
        elif k % 3 == 1:
            a = rng.uniform(3.45, 3.55)
            atoms, moments = bulk("Fe", "bcc", a=a / 2**0.5, cubic=True), [1.5, -1.5]
            atoms.set_cell([a / 2**0.5, a / 2**0.5, a * rng.uniform(1.0, 1.06)], scale_atoms=True)
        else:
            a = rng.uniform(2.42, 2.50)
            atoms, moments = bulk("Fe", "hcp", a=a, c=a * rng.uniform(1.56, 1.62)), [0.0, 0.0]
        set_magmoms(atoms, moments)
        out.append(atoms)
    return out


def elastic(model, magmoms):
    return ElasticTensorCalculation(
        model, magmoms=magmoms, strains=STRAINS, fmax=FMAX, stress_tol=STRESS_TOL, magforce_tol=MAGFORCE_TOL,
        max_steps=MAX_STEPS,
    )  # fmt: skip


def with_ase(atoms, calculator, strains):
    """The same strained cells with ASE's FIRE and our calculator, moments fixed, cell after cell."""
    atoms = atoms.copy()
    atoms.calc = calculator
    for _ in FIRE(FrechetCellFilter(atoms), logfile=None).irun(fmax=0.0, steps=MAX_STEPS):
        stress = np.abs(atoms.get_stress()).max() * EV_PER_A3_IN_GPA
        if np.linalg.norm(atoms.get_forces(), axis=1).max() <= FMAX and stress <= STRESS_TOL:
            break
    for gradient in strains:
        strained = atoms.copy()
        strained.calc = calculator
        strained.set_cell(atoms.cell.array @ gradient.T, scale_atoms=True)
        FIRE(strained, logfile=None).run(fmax=FMAX, steps=MAX_STEPS)
        strained.get_stress()


def gradients(result):
    reference = result.reference.cell.array
    return [np.linalg.solve(reference, p.atoms.cell.array).T for p in next(iter(result.points.values()))]


def timed(function):
    """Wall and processor time, which differ where others use the machine, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu]), value


def test_elastic_constants():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    images = structures(N_STRUCTURES)
    some = images[:N_ONE_BY_ONE]
    model = mmace_sim.load_model(MODEL, device="cuda" if torch.cuda.is_available() else "cpu")
    calculator = mmace_sim.MMACECalculator(model=model)
    elastic(model, "relaxed").run(images[:2])  # warm up
    rows, statuses, agreement = {}, {}, {}
    for mode in ("relaxed", "fixed"):
        seconds, together = timed(lambda mode=mode: elastic(model, mode).run(images))
        alone_seconds, alone = timed(lambda mode=mode: [elastic(model, mode).run([a])[0] for a in some])
        rows[f"batch_{mode}"] = seconds / len(images)
        rows[f"structure_by_structure_{mode}"] = alone_seconds / len(some)
        statuses[mode] = sum(r.status == "converged" for r in together)
        agreement[mode] = max(
            float(np.abs(a.constants[mode].c_gpa - b.constants[mode].c_gpa).max())
            for a, b in zip(together, alone, strict=False)
        )
    few = some[: max(1, len(some) // 4)]
    cells = [gradients(result) for result in together]
    ase_seconds, _ = timed(lambda: [with_ase(a, calculator, c) for a, c in zip(few, cells, strict=False)])
    rows["cell_by_cell_ase_fixed"] = ase_seconds / len(few)
    n_cells = statistics.mean(len(c) for c in cells)
    ratios = {
        "relaxed, against structure by structure": rows["structure_by_structure_relaxed"]
        / rows["batch_relaxed"],
        "fixed, against structure by structure": rows["structure_by_structure_fixed"] / rows["batch_fixed"],
        "fixed, against ASE cell by cell": rows["cell_by_cell_ase_fixed"] / rows["batch_fixed"],
    }
    write(
        "elastic_constants",
        {
            "model": model.metadata.get("name", MODEL),
            "n_structures": {"batch": len(images), "structure_by_structure": len(some), "ase": len(few)},
            "mean_strained_cells": round(n_cells, 1),
            "settings": {
                "fmax": FMAX,
                "stress_tol": STRESS_TOL,
                "magforce_tol": MAGFORCE_TOL,
                "strains": STRAINS,
            },
            "seconds_per_structure": {key: float(value[0].round(3)) for key, value in rows.items()},
            "cpu_seconds_per_structure": {key: float(value[1].round(3)) for key, value in rows.items()},
            "speedup": {key: float(value[0].round(2)) for key, value in ratios.items()},
            "speedup_cpu_time": {key: float(value[1].round(2)) for key, value in ratios.items()},
            "n_converged": statuses,
            "largest_difference_gpa": {key: round(value, 4) for key, value in agreement.items()},
        },
    )

"""Phonons of 20 crystals in one call, against one after another: ours, and ASE with phonopy and our calculator.

Seconds are those of the processor (one thread), so that a busy machine does not matter.
"""

import os
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from record import MODEL, write

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.properties.phonons import Phonons
from mmace_sim.properties.phonons.bands import band_path
from mmace_sim.properties.phonons.cells import make_phonopy, restoring_forces, supercells
from mmace_sim.structures.supercells import choose_supercell
from mmace_sim.units import EV_PER_A3_IN_GPA

N_CRYSTALS = int(os.environ.get("MMACE_BENCHMARK_CRYSTALS", "20"))
N_REPEATS = int(os.environ.get("MMACE_BENCHMARK_REPEATS", "1"))
MIN_LENGTHS = (8.0, 10.0)
FMAX, STRESS_TOL, MAX_STEPS = 1e-3, 0.05, 500


def crystals():
    """Half of them ferromagnetic bcc, half antiferromagnetic fcc, each strained along its axes."""
    rng = np.random.default_rng(0)
    out = []
    for k in range(N_CRYSTALS):
        atoms = bulk("Fe", "bcc", a=rng.uniform(2.78, 2.88), cubic=True)
        moments = [2.2, 2.2]
        if k % 2:
            a = rng.uniform(3.48, 3.56)
            atoms.set_cell([a / 2**0.5, a / 2**0.5, a], scale_atoms=True)
            moments = [1.6, -1.6]
        set_magmoms(atoms, moments)
        out.append(atoms)
    return out


def with_ase(start, calculator, min_length):
    """ASE's FIRE until our criteria hold, phonopy's displacements one after another, the same results of phonopy."""
    atoms = start.copy()
    atoms.calc = calculator
    optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
    for _ in optimizer.irun(fmax=0.0, steps=MAX_STEPS):
        force = np.linalg.norm(atoms.get_forces(), axis=1).max()
        if force <= FMAX and np.abs(atoms.get_stress()).max() * EV_PER_A3_IN_GPA <= STRESS_TOL:
            break
    matrix = choose_supercell(atoms.cell.array, min_length)
    atoms.calc = None
    phonon, _ = make_phonopy(atoms, supercell=matrix, displacement=0.01, symprec=1e-3, spin_orbit=False)
    forces = []
    for cell in supercells(phonon):
        displaced = Atoms(cell.symbols, cell=cell.cell, positions=cell.positions, pbc=True)
        set_magmoms(displaced, cell.magnetic_moments)
        displaced.calc = calculator
        forces.append(displaced.get_forces())
    phonon.forces = restoring_forces(phonon, forces)
    phonon.produce_force_constants(show_drift=False)
    phonon.symmetrize_force_constants(show_drift=False)
    path = band_path(phonon)
    phonon.run_band_structure(path.qpoints)
    phonon.run_mesh(60.0)
    phonon.run_total_dos()
    phonon.run_thermal_properties(cutoff_frequency=1e-3)
    return phonon


def timed(function):
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def parts(workflow, images):
    """Seconds for relaxing, for phonopy's displacements, and for the forces, each of all crystals."""
    relaxing, relaxed = timed(lambda: workflow.crystals.run(images))
    displacing, jobs = timed(lambda: [workflow._displace(k, crystal) for k, crystal in enumerate(relaxed)])
    cells = [cell for job in jobs for cell in supercells(job.result.phonon)]
    forces, _ = timed(lambda: workflow.frozen.run(cells))
    return {"relax": relaxing, "displace (phonopy)": displacing, "forces": forces}, len(cells)


def measure(model, images, min_length):
    settings = {"magmoms": "fixed", "min_length": min_length, "fmax": FMAX, "stress_tol": STRESS_TOL}
    workflow, calculator = Phonons(model, **settings), mmace_sim.MMACECalculator(model=model)
    workflow.run(images[:2])  # warm up
    with_ase(images[0], calculator, min_length)
    rows = {"one_call": [], "one_by_one": [], "one_by_one_ase": []}
    for _ in range(N_REPEATS):
        seconds, together = timed(lambda: workflow.run(images))
        rows["one_call"].append(seconds)
        seconds, single = timed(lambda: [workflow.run([atoms])[0] for atoms in images])
        rows["one_by_one"].append(seconds)
        seconds, ase = timed(lambda: [with_ase(atoms, calculator, min_length) for atoms in images])
        rows["one_by_one_ase"].append(seconds)
    of_parts, n_cells = parts(workflow, images)
    top = [max(f.max() for f in r.phonon.band_structure.frequencies) for r in together]
    alone = [max(f.max() for f in r.phonon.band_structure.frequencies) for r in single]
    by_ase = [max(f.max() for f in phonon.band_structure.frequencies) for phonon in ase]
    assert all(str(result.status) == "converged" for result in together)
    assert np.abs(np.subtract(top, alone)).max() < 0.01
    return {
        "n_atoms_supercell": sorted({len(result.phonon.supercell) for result in together}),
        "n_supercells": n_cells,
        "seconds_median": {key: round(statistics.median(values), 2) for key, values in rows.items()},
        "seconds": {key: [round(v, 2) for v in values] for key, values in rows.items()},
        "seconds_of_parts_of_one_call": {key: round(value, 2) for key, value in of_parts.items()},
        "speedup": {
            key: round(statistics.median(rows[key]) / statistics.median(rows["one_call"]), 2)
            for key in ("one_by_one", "one_by_one_ase")
        },
        "largest_difference_thz": {
            "one_by_one": float(np.abs(np.subtract(top, alone)).max()),
            "one_by_one_ase, which keeps the moments while relaxing": float(
                np.abs(np.subtract(top, by_ase)).max()
            ),
        },
        "moments": [round(float(np.linalg.norm(get_magmoms(r.atoms)[0])), 3) for r in together[:2]],
    }


def commands(images, folder):
    """Processor seconds of one command for all crystals, and of one for each; starting up included."""
    from ase.io import write as write_atoms

    inputs = folder / "in"
    inputs.mkdir()
    for k, atoms in enumerate(images):
        write_atoms(inputs / f"{k:02d}.extxyz", atoms)
    common = ["--magmoms", "fixed", "--min-length", str(MIN_LENGTHS[0]), "--no-plots", "-m", MODEL, "-q"]

    def run(path, name):
        program = [sys.executable, "-c", "from mmace_sim.cli.app import main; main()"]
        subprocess.run([*program, "phonons", str(path), "-o", str(folder / name), *common], check=True)

    def seconds():
        times = os.times()
        return times.children_user + times.children_system

    start = seconds()
    run(inputs, "together")
    middle = seconds()
    for path in sorted(inputs.iterdir()):
        run(path, path.stem)
    end = seconds()
    return {"one_command": round(middle - start, 1), "one_command_each": round(end - middle, 1)}


def test_phonons(tmp_path):
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = mmace_sim.load_model(MODEL, device=device)
    images = crystals()
    write(
        "phonons",
        {
            "model": model.metadata.get("name", MODEL),
            "n_crystals": N_CRYSTALS,
            "settings": {"magmoms": "fixed", "fmax": FMAX, "stress_tol": STRESS_TOL, "displacement": 0.01},
            "seconds_of": "processor time of one thread",
            "by_min_length": {str(length): measure(model, images, length) for length in MIN_LENGTHS},
            "commands": commands(images, tmp_path),
        },
    )

"""The numbers of ``docs/limits.md``: what relaxes to what, ordering temperatures on coarse grids, lengths in known wells.

::

    python tests/benchmarks/limits.py [interstitials] [random_cells] [curie_grids] [langevin]

Each part takes less than a quarter of an hour on one core and writes ``docs/benchmarks/limits_<part>.json``. Relaxations and
ordering temperatures are runs of the command line, with its defaults.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from record import MODEL, write

from mmace_sim.base.constants import ELECTRON_G
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.torchsim.langevin_spins import (
    NOISE_COLUMNS,
    MomentDynamics,
    Spins,
    gyromagnetic_ratio,
    moment_step,
)
from mmace_sim.units import BOLTZMANN_EV_PER_K

A = 2.8289
"""Å, lattice constant of ferromagnetic bcc iron with `mmace-fe-pbe`, weights of version 0.2 (docs/models/iron.json has that of others)."""
J = 0.02
CRITICAL = 1.4429 * J / BOLTZMANN_EV_PER_K
"""K; k_B T_C / J' of the simple cubic Heisenberg model: Chen, Ferrenberg and Landau, 10.1103/PhysRevB.48.3249."""


def run(*arguments: Any) -> dict[str, Any]:
    """Run ``mmace-sim`` in a process of its own; returns its summary."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "mmace_sim",
            *map(str, arguments),
            "--threads",
            "1",
            "-q",
            "-o",
            f"{folder}/run",
        ]
        done = subprocess.run(command, check=False)
        if done.returncode not in (0, 3):
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}")
        return json.loads((Path(folder) / "run" / "summary.json").read_text())


def relaxed(images: dict[str, Atoms], *flags: str) -> dict[str, dict[str, Any]]:
    """Entries of the summary of a relaxation, by the names of the structures."""
    with tempfile.TemporaryDirectory() as folder:
        for name, atoms in images.items():
            ase.io.write(f"{folder}/{name}.extxyz", atoms)
        return {
            Path(entry["file"]).stem: entry
            for entry in run("relax", folder, "-m", MODEL, *flags)["structures"]
        }


# --- self-interstitials of iron -----------------------------------------------------------------------------------------


def interstitials(repeat: int) -> dict[str, Atoms]:
    """Ferromagnetic bcc iron with an atom too many, by the kind of the place, and the crystal without it."""
    crystal = bulk("Fe", "bcc", a=A, cubic=True).repeat(repeat)
    crystal.arrays.pop("initial_magmoms")
    images = {"crystal": crystal.copy()}
    for name, place in {"octahedral": (2, 2, 0), "tetrahedral": (2, 1, 0), "crowdion": (1, 1, 1)}.items():
        images[name] = crystal + Atoms("Fe", [np.multiply(place, A / 4)])
    for name, axis in {"100": (1, 0, 0), "110": (1, 1, 0), "111": (1, 1, 1)}.items():
        ends = np.outer([1.0, -1.0], axis) / np.linalg.norm(axis)
        images[name] = crystal[1:] + Atoms("Fe2", crystal.positions[0] + ends)
    for atoms in images.values():
        set_magmoms(atoms, [2.2] * len(atoms))
    return images


def shaken(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """With random displacements of 0.05 Å and changes of the moments of 0.05 μB, which break every symmetry."""
    atoms = atoms.copy()
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    atoms.arrays["initial_magmoms"] = atoms.get_initial_magnetic_moments() + rng.normal(
        0, 0.05, (len(atoms), 3)
    )
    return atoms


def measure_interstitials() -> dict[str, Any]:
    """Formation energies in fixed and free cells, from symmetric starts and from shaken ones."""
    rng, rows = np.random.default_rng(0), []
    for repeat in (2, 3):
        ideal = interstitials(repeat)
        starts = {"symmetric": ideal}
        if repeat == 2:
            starts["shaken"] = {name: shaken(atoms, rng) for name, atoms in ideal.items()}
        for start, images in starts.items():
            for cell in ("fixed", "free"):
                entries = relaxed(images, "--fixed-cell" if cell == "fixed" else "--relax-cell")
                crystal = entries.pop("crystal")["energy"] / len(images["crystal"])
                rows += [
                    {
                        "place": name, "atoms": len(images[name]), "cell": cell, "start": start, "status": entry["status"],
                        "steps": entry["steps"], "formation_energy": entry["energy"] - len(images[name]) * crystal,
                        "order": entry["magnetic_order_final"], "domain": entry["domain"], "message": entry["message"],
                    }
                    for name, entry in entries.items()
                ]  # fmt: skip
    return {"lattice_constant": A, "rows": rows}


# --- random cells -------------------------------------------------------------------------------------------------------


def random_cell(rng: np.random.Generator) -> Atoms:
    """One to six iron atoms, 0.7 Å apart or more, 2 to 20 Å³ for each, with moments in any direction."""
    while True:
        n = int(rng.integers(1, 7))
        cell = rng.normal(size=(3, 3)) + 1.5 * np.eye(3)
        volume = np.linalg.det(cell)
        if volume < 0.3:
            continue
        cell *= (n * rng.uniform(2, 20) / volume) ** (1 / 3)
        atoms = Atoms(f"Fe{n}", cell=cell, scaled_positions=rng.uniform(size=(n, 3)), pbc=True)
        if len(neighbor_list("d", atoms, 0.7)) == 0:
            set_magmoms(atoms, rng.normal(size=(n, 3)))
            return atoms


def measure_random_cells(n_cells: int = 500) -> dict[str, Any]:
    """What random cells end as, measured from ferromagnetic bcc iron."""
    rng = np.random.default_rng(0)
    images = {f"{k:03d}": random_cell(rng) for k in range(n_cells)}
    crystal = interstitials(1)["crystal"]
    entries = relaxed(images | {"crystal": crystal})
    lowest = entries.pop("crystal")["energy_per_atom"]
    above = [e["energy_per_atom"] - lowest for e in entries.values() if e["energy_per_atom"] is not None]
    return {
        "cells": n_cells,
        "atoms": [1, 6],
        "statuses": Counter(entry["status"] for entry in entries.values()),
        "lowest_above_bcc": min(above),
        "at_bcc": sum(abs(e) < 1e-3 for e in above),
        "quantiles_above_bcc": np.quantile(above, [0.1, 0.25, 0.5, 0.75, 0.9]).tolist(),
        "below_bcc_by_more_than_1_meV": sum(e < -1e-3 for e in above),
    }


# --- ordering temperatures ----------------------------------------------------------------------------------------------


def cubic_exchange(folder: Path) -> Path:
    """A folder as ``mmace-sim exchange`` leaves it: nearest neighbours of a simple cubic lattice, `J`."""
    rows = ["first,second,cell_a,cell_b,cell_c,x,y,z,Jxx,Jyy,Jzz"]
    shifts = np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    rows += [",".join(map(str, [1, 1, *shift, *(2.8 * shift), *[1000 * J] * 3])) for shift in shifts]
    (folder / "cubic").mkdir(parents=True)
    (folder / "cubic" / "pairs.csv").write_text("\n".join(rows) + "\n")
    entry = {"name": "cubic.extxyz", "moments": [2.2]}
    (folder / "summary.json").write_text(json.dumps({"command": "exchange", "structures": [entry]}))
    return folder


def measure_curie_grids() -> dict[str, Any]:
    """T_C of the simple cubic Heisenberg model with temperatures of the program's choice, and on coarse grids."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        atoms = bulk("Fe", "sc", a=2.8)
        set_magmoms(atoms, [2.2])
        ase.io.write(folder / "cubic.extxyz", atoms)
        source = cubic_exchange(folder / "exchange")
        for grid, seed in (
            ("automatic", 0),
            ("automatic", 1),
            ("100:600:50", 0),
            ("100:1000:100", 0),
            ("150:650:50", 1),
        ):
            flags = [] if grid == "automatic" else ["--temperatures", grid]
            summary = run("curie", folder / "cubic.extxyz", "--from", source, "--seed", seed, *flags)
            (entry,) = summary["structures"]
            rows.append({"temperatures": grid, "seed": seed} | {
                key: entry[key]
                for key in (
                    "curie_temperature", "curie_temperature_error", "estimator", "binder_crossings", "susceptibility_peaks",
                    "status", "message",
                )
            })  # fmt: skip
    return {"exact": CRITICAL, "rows": rows}


# --- lengths of moments in known wells ----------------------------------------------------------------------------------


def quadrature(energy: Any, kT: float, longest: float = 5.0) -> tuple[float, float]:
    """Mean and width of |m| with p ∝ |m|² exp(−E/k_BT)."""
    grid = np.linspace(0.0, longest, 20001)
    weight = grid**2 * np.exp(-(energy(grid) - energy(grid).min()) / kT)
    mean = (weight * grid).sum() / weight.sum()
    return float(mean), float(np.sqrt((weight * (grid - mean) ** 2).sum() / weight.sum()))


def sample(fields: Any, m: torch.Tensor, kT: float, dt: float, watch: Any, *, fs: float = 900.0) -> float:
    """Moments in a bath from a start on; `watch` sees them after the first quarter. Returns the part of steps unsolved."""
    generator, n = np.random.default_rng(1), len(m)
    dynamics = MomentDynamics(damping=0.1, length_friction=0.05)
    unsolved, n_steps = 0, round(fs / dt)
    gamma, bath = m.new_full((n,), gyromagnetic_ratio(ELECTRON_G)), m.new_full((n,), kT)
    for k in range(n_steps):
        step = moment_step(
            Spins(m, gamma, bath, torch.arange(n) // 2, n // 2),
            fields,
            dynamics,
            dt=dt,
            noise=torch.as_tensor(generator.normal(size=(n, NOISE_COLUMNS))),
        )
        m = step.magmoms
        unsolved += int((step.residual > dynamics.tolerance).sum())
        if k >= n_steps // 4:
            watch(m)
    return unsolved / (n_steps * (n // 2))


def starts(n: int, length: float) -> torch.Tensor:
    """Moments of one length in random directions."""
    m = torch.as_tensor(np.random.default_rng(0).normal(size=(n, 3)))
    return length * m / m.norm(dim=1, keepdim=True)


def in_well(curvature: float, temperature: float, dt: float, n: int = 2000) -> dict[str, Any]:
    """Lengths in E = K/8 (m² − 4)²/4 with the curvature K at 2 μB, against quadrature."""
    kT = temperature * BOLTZMANN_EV_PER_K
    mean, width = quadrature(lambda r: curvature / 32 * (r**2 - 4) ** 2, kT)
    sums: list[tuple[float, float]] = []

    def watch(m: torch.Tensor) -> None:
        r = m.norm(dim=1)
        sums.append((float(r.mean()), float((r**2).mean())))

    unsolved = sample(
        lambda m: -curvature / 8 * ((m * m).sum(dim=1, keepdim=True) - 4) * m, starts(n, 2.0), kT, dt, watch
    )
    first, second = np.mean(sums, axis=0)
    return {
        "curvature": curvature, "temperature": temperature, "timestep_fs": dt, "unsolved": unsolved,
        "mean_over_exact": first / mean, "width_over_exact": np.sqrt(second - first**2) / width,
    }  # fmt: skip


def in_pair(temperature: float, dt: float, n: int = 4000, exchange: float = 0.1) -> dict[str, Any]:
    """Angle of two moments with E = Σ 3/8 (m² − 1)² − J m₁·m₂, against quadrature."""
    kT = temperature * BOLTZMANN_EV_PER_K
    r = np.linspace(1e-3, 2.4, 600)
    a, b = np.meshgrid(r, r, indexing="ij")
    x = exchange * a * b / kT
    weight = a**2 * b**2 * np.exp(-0.375 * ((a**2 - 1) ** 2 + (b**2 - 1) ** 2) / kT) * np.sinh(x) / x
    exact = float((weight * (1 / np.tanh(x) - 1 / x)).sum() / weight.sum())
    partner, cosines = torch.arange(n).reshape(-1, 2).flip(1).reshape(-1), []

    def watch(m: torch.Tensor) -> None:
        e = m / m.norm(dim=1, keepdim=True)
        cosines.append(float((e * e[partner]).sum(dim=1).mean()))

    unsolved = sample(
        lambda m: -1.5 * ((m * m).sum(dim=1, keepdim=True) - 1) * m + exchange * m[partner],
        starts(n, 1.0), kT, dt, watch, fs=3000.0,
    )  # fmt: skip
    parts = np.array_split(cosines, 10)
    error = np.std([part.mean() for part in parts], ddof=1) / np.sqrt(len(parts))
    return {
        "temperature": temperature, "timestep_fs": dt, "unsolved": unsolved, "cosine_over_exact": np.mean(cosines) / exact,
        "error": error / exact,
    }  # fmt: skip


def measure_langevin() -> dict[str, Any]:
    """Lengths and angles of ``md --lengths langevin`` against quadrature."""
    rows = [in_well(k, t, dt) for k in (0.5, 1.5, 3.0) for t in (300, 700, 1500) for dt in (0.5, 1.0, 2.0)]
    return {"rows": rows, "pairs": [in_pair(600, dt) for dt in (1.0, 2.0, 4.0)]}


PARTS = {
    "interstitials": measure_interstitials,
    "random_cells": measure_random_cells,
    "curie_grids": measure_curie_grids,
    "langevin": measure_langevin,
}


def main() -> None:
    """Measure the chosen parts, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    torch.set_num_threads(1)
    for part in parser.parse_args().parts or PARTS:
        began = sum(os.times()[:4])
        results = PARTS[part]()
        path = write(f"limits_{part}", results | {"cpu_seconds": round(sum(os.times()[:4]) - began)})
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()

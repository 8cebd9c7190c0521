"""Ordering temperatures of Heisenberg lattices against the literature, cost of sweeps, iron with the default model."""

import os
import time
from pathlib import Path

import pytest
import torch
from ase.build import bulk
from record import write

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.units import BOLTZMANN_EV_PER_K
from mmace_sim.workflows.curie.chains import replicas, run_blocks
from mmace_sim.workflows.curie.estimators import estimate
from mmace_sim.workflows.curie.heatbath import HeatBath
from mmace_sim.workflows.curie.hmc import HybridMonteCarlo
from mmace_sim.workflows.curie.lattice import SpinModel
from mmace_sim.workflows.curie.local import LocalEnergy, find_colors, reach, sweep_cost
from mmace_sim.workflows.curie.output import point_row
from mmace_sim.workflows.curie.statistics import points
from mmace_sim.workflows.curie.surface import Supercells

SWEEPS = int(os.environ.get("MMACE_BENCHMARK_SWEEPS", "2500"))
CHECKPOINTS = os.environ.get("MMACE_BENCHMARK_CHECKPOINTS")
J = 0.02
LATTICES = {
    # lattice: nearest distance of a = 1 cube, sizes, k T_C/J' of the literature, temperatures k T/J'
    "bcc": (0.75**0.5, (4, 6, 9), 2.0542, (1.99, 2.025, 2.055, 2.085, 2.12)),
    "sc": (1.0, (6, 8, 12), 1.4429, (1.40, 1.425, 1.445, 1.465, 1.49)),
}


def checkpoint(name):
    return Path(CHECKPOINTS) / f"{name}.npz" if CHECKPOINTS else None


def value(found):
    return None if found is None else {"mean": found.mean, "error": found.error}


def in_units(found, unit):
    return None if found is None else {"mean": found.mean * unit, "error": found.error * unit}


def lattice_run(name):
    distance, sizes, expected, reduced = LATTICES[name]
    atoms = bulk("Fe", name, a=2.8)
    set_magmoms(atoms, [2.0])
    model = SpinModel.from_shells(atoms, [(2.8 * distance, J)])
    chains = replicas([x * J / BOLTZMANN_EV_PER_K for x in reduced], 0, 1, name)
    sampler = HeatBath([model.network(size) for size in sizes], chains)
    start = time.process_time()
    series = run_blocks(sampler, SWEEPS // 5, SWEEPS, checkpoint=checkpoint(name), identity=name)
    seconds = time.process_time() - start
    rows = points(series, chains, sampler.sizes)
    found = estimate(rows)
    updates = sum(sampler.sizes) * len(chains) * SWEEPS * 6 // 5
    unit = BOLTZMANN_EV_PER_K / J
    return expected, {
        "expected_kT_over_J": expected,
        "sizes": sampler.sizes,
        "sweeps": SWEEPS,
        "over_relaxation": sampler.n_over,
        "crossings_kT_over_J": [in_units(v, unit) for v in found.crossings],
        "peaks_kT_over_J": [in_units(v, unit) for v in found.peaks],
        "heat_bath_updates_per_second": updates / seconds,
        "all_updates_per_second": updates * (1 + sampler.n_over) / seconds,
        "processor_seconds": seconds,
        "points": [point_row(p) for row in rows for p in row],
    }


def test_heisenberg_lattices():
    runs = {name: lattice_run(name) for name in LATTICES}
    write("curie_heisenberg", {name: record for name, (_, record) in runs.items()})
    for expected, record in runs.values():
        assert record["crossings_kT_over_J"][-1]["mean"] == pytest.approx(expected, rel=0.01)


def iron(repeat):
    atoms = bulk("Fe", cubic=True, a=2.83)
    atoms.arrays.pop("initial_magmoms", None)
    set_magmoms(atoms, [2.249, 2.249])
    return atoms.repeat(repeat)


def timed(function, n=2):
    times = []
    for _ in range(n):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def test_cost_of_sweeps():
    """What moves cost in energies of the whole cell of 3456 atoms, for the default model."""
    model = mmace_sim.load_model("default", dtype=torch.float32)
    cells = Supercells(model, [iron(12)], replicas([1000.0], 0, 1, "iron"))
    graph = cells.single_graph(0)
    local = LocalEnergy(model, graph)
    colors = find_colors(graph, reach(model))
    energy = timed(local.refresh)
    gradient = timed(lambda: cells.evaluate(cells.moments))
    color = colors[0]
    turned = torch.randn(len(color.atoms), 3)
    one = timed(lambda: local.propose(color, turned))
    per_atom = one / len(color.atoms)
    write(
        "curie_cost",
        {
            "model": "default (one interaction, 5 Å), float32",
            "n_atoms": graph.n_atoms,
            "energy_s": energy,
            "energy_and_magforces_s": gradient,
            "gradient_in_energies": gradient / energy,
            "n_colors": len(colors),
            "atoms_of_first_color": len(color.atoms),
            "local_sweep_in_energies_counted": sweep_cost(colors),
            "local_sweep_in_energies_measured": per_atom * graph.n_atoms / energy,
            "hybrid_trajectory_of_10_steps_in_energies": 10 * gradient / energy,
        },
    )


@pytest.mark.parametrize("lengths", ["fixed", "variable"])
def test_iron(lengths):
    temperatures = [float(t) for t in os.environ.get("MMACE_BENCHMARK_TEMPERATURES", "").split(",") if t]
    temperatures = temperatures or [400.0, 700.0, 950.0, 1150.0, 1350.0, 1600.0]
    sizes = [int(n) for n in os.environ.get("MMACE_BENCHMARK_SIZES", "2,3").split(",")]
    n_eq, n = (int(k) for k in os.environ.get("MMACE_BENCHMARK_TRAJECTORIES", "16,64").split(","))
    model = mmace_sim.load_model("default", dtype=torch.float32)
    chains = replicas(temperatures, 0, 1, "iron")
    cells = Supercells(model, [iron(size) for size in sizes], chains)
    sampler = HybridMonteCarlo(cells, lengths=lengths, n_steps=6, n_adapt=n_eq)
    start = time.process_time()
    name = f"iron-{lengths}"
    series = run_blocks(sampler, n_eq, n, block_sweeps=5, checkpoint=checkpoint(name), identity=name)
    rows = points(series, chains, cells.n_atoms)
    found = estimate(rows)
    write(
        f"curie_iron_{lengths}",
        {
            "model": "default, float32, bcc a = 2.83 Å, lattice fixed",
            "lengths": lengths,
            "trajectories": n,
            "equilibration": n_eq,
            "processor_seconds": time.process_time() - start,
            "crossings": [value(v) for v in found.crossings],
            "peaks": [value(v) for v in found.peaks],
            "power_law": value(found.power_law),
            "exponent": value(found.exponent),
            "notes": found.notes,
            "experiment": 1043.0,
            "points": [point_row(p) for row in rows for p in row],
        },
    )

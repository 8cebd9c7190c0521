"""Ordering temperatures of Heisenberg lattices against the literature, cost of sweeps, iron with an embedded model.

Run it with JAXTYPING_DISABLE=1: checks of annotations cost more than small tensors.
"""

import os
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from record import MODEL, write

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.model.derivatives import evaluate
from mmace_sim.properties.curie.estimators import estimate
from mmace_sim.properties.curie.output import point_row
from mmace_sim.sampling.chains import replicas, run_blocks
from mmace_sim.sampling.correlation import autocorrelation_time
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.sampling.heatbath import HeatBath
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.local import LocalMoves
from mmace_sim.sampling.statistics import points
from mmace_sim.sampling.surface import Supercells
from mmace_sim.units import BOLTZMANN_EV_PER_K

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
    model = SpinHamiltonian.from_shells(atoms, [(2.8 * distance, J)])
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


def seconds(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def local_moves(local, n_sampled=10):
    """A few colors, evenly taken, and the factor that makes them one move of every atom of one supercell."""
    chosen = range(0, len(local.colors), max(len(local.colors) // n_sampled, 1))
    generator = torch.Generator().manual_seed(0)

    def moves():
        for k in chosen:
            old = local.graph.magmoms[local.colors[k].atoms]
            new = torch.randn(old.shape, generator=generator, dtype=torch.float64).to(old)
            new *= torch.linalg.norm(old, dim=1, keepdim=True) / torch.linalg.norm(new, dim=1, keepdim=True)
            local.accept(k, new, torch.rand(len(new), generator=generator) < 0.5, local.propose(k, new))

    n_moved = sum(len(local.colors[k].atoms) for k in chosen)
    return moves, local.graph.n_atoms / local.graph.n_systems / n_moved


def sweep_costs(model, repeat, n_chains, n_rounds):
    """Medians of interleaved rounds, so that what else the machine does hits all alike."""
    chains = replicas([900.0 + 100 * k for k in range(n_chains)], 0, 1, "iron")
    parts = {}
    for lengths in ("fixed", "variable"):
        sampler = LocalMoves(Supercells(model, [iron(repeat)], chains), lengths=lengths)
        parts[f"local sweep, {lengths} lengths"] = local_moves(sampler.local[0])
    cells, colors = sampler.cells, sampler.local[0].colors
    graph = cells.batch_graph((0,))
    one = Supercells(model, [iron(repeat)], chains[:1])
    for lengths in ("fixed", "variable"):
        fixed = {"same_lengths": lengths == "fixed"}
        parts[f"step of a hybrid move, {lengths} lengths"] = (
            partial(one.evaluate, one.moments, **fixed),
            1.0,
        )
    still = {"compute_forces": False, "compute_stress": False}
    parts |= {
        "energy": (partial(evaluate, model, graph, compute_magforces=False, **still), 1.0),
        "energy and magforces": (partial(evaluate, model, graph, **still), 1.0),
        "energy, forces, stress, magforces": (partial(evaluate, model, graph), 1.0),
    }
    one.evaluate(one.moments, same_lengths=True)  # what is computed once
    times = {name: [] for name in parts}
    for _ in range(n_rounds):
        for name, (function, factor) in parts.items():
            times[name].append(factor * seconds(function))
    median = {name: statistics.median(values) for name, values in times.items()}
    energy, full = median["energy"], median["energy, forces, stress, magforces"]
    return {
        "n_atoms": graph.n_atoms,
        "dtype": str(model.dtype).removeprefix("torch."),
        "chains_in_one_batch": len(sampler.members[0]),
        "n_colors": len(colors),
        "atoms_per_color": graph.n_atoms / len(colors),
        "energies_of_atoms_without_kept_sums": sum(len(color.centres) for color in colors) / graph.n_atoms,
        "seconds": median,
        "in_energies": {name: value / energy for name, value in median.items()},
        "in_full_evaluations": {name: value / full for name, value in median.items()},
        "rounds": n_rounds,
    }


def test_cost_of_sweeps():
    """What moves of every atom cost, in energies and in full evaluations of the whole cell, for an embedded model."""
    n_rounds = int(os.environ.get("MMACE_BENCHMARK_ROUNDS", "5"))
    rows = []
    for repeat, n_chains in ((12, 1), (6, 6), (6, 1)):
        for dtype in (torch.float32, torch.float64):
            rows.append(sweep_costs(mmace_sim.load_model(MODEL, dtype=dtype), repeat, n_chains, n_rounds))
            write("curie_cost", {"model": f"{MODEL} (one interaction, 5 Å)", "rows": rows})


def test_cost_of_independent_samples():
    """Cost of a sweep of one chain times its autocorrelation time: four chains of 128 atoms at 900 K, kinds in turn."""
    n_sweeps, n_chains = int(os.environ.get("MMACE_BENCHMARK_SWEEPS", "240")), 4
    model = mmace_sim.load_model(MODEL, dtype=torch.float32)
    kinds = {"local": (LocalMoves, {"step": 0.7}), "hybrid, 6 steps": (HybridMonteCarlo, {"n_steps": 6}),
             "hybrid, 10 steps": (HybridMonteCarlo, {"n_steps": 10})}  # fmt: skip
    chains = replicas([900.0], 0, n_chains, "iron")
    samplers = {name: engine(Supercells(model, [iron(4)], chains), n_adapt=n_sweeps // 6, **settings)
                for name, (engine, settings) in kinds.items()}  # fmt: skip
    graphs = [Supercells(model, [iron(4)], chains).batch_graph((k,)) for k in range(n_chains)]
    still = dict.fromkeys(("compute_forces", "compute_stress", "compute_magforces"), False)
    times, parts, energies = {name: [] for name in kinds}, {name: [] for name in kinds}, []

    def advance(name, block):
        parts[name].append(samplers[name].advance(block, 5))

    for block in range(n_sweeps // 5):
        energies.append(seconds(lambda: [evaluate(model, graph, **still) for graph in graphs]))
        for name in kinds:
            times[name].append(seconds(partial(advance, name, block)) / 5)
        if block % 4 == 3:
            rows = {
                name: sample_cost(parts[name], times[name], energies, (block + 1) * 5 // 6) for name in kinds
            }
            record = {
                "model": f"{MODEL}, float32",
                "n_atoms": 128,
                "temperature": 900.0,
                "sweeps": 5 * (block + 1),
            }
            write("curie_samples", record | {"chains": n_chains, "rows": rows})


def sample_cost(parts, times, energies, n_equilibration):
    """What a sweep and an independent sample of one chain cost, in energies of the cell."""
    order, energy, acceptance = (
        np.concatenate([part[key][:, 0] for part in parts])[n_equilibration:]
        for key in ("order", "energy", "acceptance")
    )
    tau = max(np.mean([autocorrelation_time(chain) for chain in values.T]) for values in (order, energy))
    cost = statistics.median(times) / statistics.median(energies)
    return {
        "sweep_in_energies": cost,
        "autocorrelation_in_sweeps": tau,
        "independent_sample_in_energies": cost * tau,
        "order": order.mean(),
        "energy": energy.mean(),
        "acceptance": acceptance.mean(),
    }


@pytest.mark.parametrize("lengths", ["fixed", "variable"])
def test_iron(lengths):
    temperatures = [float(t) for t in os.environ.get("MMACE_BENCHMARK_TEMPERATURES", "").split(",") if t]
    temperatures = temperatures or [400.0, 700.0, 950.0, 1150.0, 1350.0, 1600.0]
    sizes = [int(n) for n in os.environ.get("MMACE_BENCHMARK_SIZES", "2,3").split(",")]
    n_eq, n = (int(k) for k in os.environ.get("MMACE_BENCHMARK_TRAJECTORIES", "16,64").split(","))
    model = mmace_sim.load_model(MODEL, dtype=torch.float32)
    chains = replicas(temperatures, 0, 1, "iron")
    cells = Supercells(model, [iron(size) for size in sizes], chains)
    sampler = HybridMonteCarlo(cells, lengths=lengths, n_steps=6, n_adapt=n_eq)
    start = time.process_time()
    name = f"iron-{lengths}"
    series = run_blocks(sampler, n_eq, n, block_sweeps=5, checkpoint=checkpoint(name), identity=name)
    rows = points(series, chains, cells.n_spins)
    found = estimate(rows)
    write(
        f"curie_iron_{lengths}",
        {
            "model": f"{MODEL}, float32, bcc a = 2.83 Å, lattice fixed",
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

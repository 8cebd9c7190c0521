"""Measures on a GPU what the page on performance lacks; run it by ``tests/gpu/run.sh``.

Every part writes its numbers as soon as it has them, and one that fails says why and costs no other.
"""

import argparse
import contextlib
import json
import statistics
import time
import traceback
import warnings
from pathlib import Path

import model_sizes as sizes
import numpy as np
import torch
from ase.build import bulk
from record import environment
from test_batched_relaxation import structures

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.neighbors import neighbor_list
from mmace_sim.model.derivatives import evaluate
from mmace_sim.properties.md.dynamics import MolecularDynamics
from mmace_sim.properties.relax.relaxation import Relaxation
from mmace_sim.sampling.chains import Chain
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.surface import Supercells
from mmace_sim.torchsim.memory import bytes_per_edge, estimate_max_memory_scaler, memory_scaler
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import initialize_state

TIMES = 5


class Machine:
    """The device, and how to take the time there."""

    def __init__(self, device, *, quick):
        self.device, self.quick, self.is_cuda = torch.device(device), quick, device.startswith("cuda")

    def wait(self):
        if self.is_cuda:
            torch.cuda.synchronize()

    def seconds(self, function, n=TIMES):
        """Median time of a call, and what it returned."""
        found, result = [], None
        if not self.quick:
            function()
        for _ in range(1 if self.quick else n):
            self.wait()
            start = time.perf_counter()
            result = function()
            self.wait()
            found.append(time.perf_counter() - start)
        return statistics.median(found), result

    @contextlib.contextmanager
    def peak(self):
        """A dictionary that has the largest memory allocated within, in bytes, afterwards."""
        found = {"bytes": None}
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        yield found
        if self.is_cuda:
            found["bytes"] = torch.cuda.max_memory_allocated() - before

    def waits(self, function):
        """How often the host waited for the device, by torch's own debug mode."""
        if not self.is_cuda:
            return None
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(w.message) for w in caught)

    def model(self, dtype=torch.float64):
        return mmace_sim.load_model("default", device=self.device, dtype=dtype)


def same_numbers(machine):
    """Energies and derivatives on the device against the CPU in float64, and of lower precisions."""
    images = structures()[:8]
    reference = MagneticMaceModel("default")(initialize_state(images, device="cpu"))
    rows = {}
    for dtype in ("float64", "float32"):
        kind = getattr(torch, dtype)
        tsm = MagneticMaceModel(machine.model(kind), skin=0.5, backend="torch")
        out = tsm(initialize_state(images, device=machine.device, dtype=kind))
        rows[dtype] = {
            key: float((out[key].double().cpu() - reference[key]).abs().max())
            for key in ("energy", "forces", "stress", "magforces")
        }
    return rows


def evaluation(machine):
    """One evaluation and one training step against mace-torch's model of the same size, with cuEquivariance if there."""
    rows = []
    for size in "a" if machine.quick else "abc":
        for n_atoms in (16,) if machine.quick else (54, 250):
            dtype = torch.float32
            model = sizes.ours(size, dtype).to(machine.device)
            graph = sizes.graph([sizes.iron(n_atoms)], sizes.SIZES[size]["r_max"], dtype)
            graph = graph.map(lambda tensor: tensor.to(machine.device))
            row = {"size": size, "atoms": n_atoms}
            row["ours_ms"] = 1e3 * machine.seconds(lambda m=model, g=graph: evaluate(m, g))[0]
            row["moments_only_ms"] = (
                1e3
                * machine.seconds(
                    lambda m=model, g=graph: evaluate(m, g, compute_forces=False, compute_stress=False)
                )[0]
            )
            row |= _against_mace(machine, size, n_atoms, dtype)
            rows.append(row)
    return rows


def _against_mace(machine, size, n_atoms, dtype):
    """Times of the yardstick; what cannot be had says why."""
    try:
        other = sizes.yardstick(size, dtype).to(machine.device)
        batch = sizes.yardstick_batch([sizes.iron(n_atoms)], sizes.SIZES[size]["r_max"], dtype)
        batch = {k: v.to(machine.device) if torch.is_tensor(v) else v for k, v in batch.items()}
        found = {"mace_ms": 1e3 * machine.seconds(sizes.yardstick_inference(other, batch))[0]}
    except Exception as error:
        return {"mace": f"{type(error).__name__}: {error}"[:200]}
    try:
        from mace.cli.convert_e3nn_cueq import run as to_cueq

        fast = to_cueq(other, device=str(machine.device))
        found["mace_cuequivariance_ms"] = 1e3 * machine.seconds(sizes.yardstick_inference(fast, batch))[0]
    except Exception as error:
        found["cuequivariance"] = f"{type(error).__name__}: {error}"[:200]
    return found


def compiled(machine):
    """torch.compile of the energy of a size, with the time that it takes to compile."""
    if machine.quick:
        return {"skipped": "takes a minute"}
    model = sizes.ours("b", torch.float32).to(machine.device)
    graph = sizes.graph([sizes.iron(54)], 6.0, torch.float32).map(lambda tensor: tensor.to(machine.device))
    vectors = graph.edge_vectors()
    plain, _ = machine.seconds(lambda: model(graph, vectors))
    start = time.perf_counter()
    faster = torch.compile(lambda v: model(graph, v)["energy"], dynamic=False)
    faster(vectors)
    machine.wait()
    first = time.perf_counter() - start
    return {
        "energy_ms": 1e3 * plain,
        "compiled_ms": 1e3 * machine.seconds(lambda: faster(vectors))[0],
        "first_s": first,
    }


def relaxations(machine):
    """Structures per second of 1,000 and 10,000 two-atom cells, and how often a step waits."""
    rows = []
    for n in (8,) if machine.quick else (1000, 10000):
        images = (structures() * (n // 64 + 1))[:n]
        for magmoms in ("joint", "adiabatic") if n <= 1000 else ("joint",):
            relaxation = Relaxation(machine.model(), magmoms=magmoms, stress_tol=0.1)
            machine.wait()
            start = time.perf_counter()
            result = relaxation.run(images)
            machine.wait()
            seconds = time.perf_counter() - start
            rows.append(
                {
                    "structures": n,
                    "magmoms": magmoms,
                    "seconds": seconds,
                    "per_second": n / seconds,
                    "converged": result.n_converged,
                    "searches_for_pairs": relaxation.bare_model.pairs.n_searches,
                }
            )
    return rows


def memory(machine):
    """Memory of a step against its estimate, and what the autobatcher would take."""
    rows = []
    for n_atoms in (16,) if machine.quick else (54, 250):
        for dtype in (torch.float32, torch.float64):
            tsm = MagneticMaceModel(machine.model(dtype))
            state = initialize_state(
                [sizes.iron(n_atoms)] * (1 if machine.quick else 16), device=machine.device, dtype=dtype
            )
            tsm(state)
            with machine.peak() as peak:
                tsm(state)
            edges = tsm.graph(state).edge_index.shape[1]
            rows.append(
                {
                    "atoms": n_atoms,
                    "dtype": str(dtype),
                    "edges": edges,
                    "bytes_per_edge": peak["bytes"] and peak["bytes"] / edges,
                    "estimate_per_edge": bytes_per_edge(tsm.model.config, dtype),
                    "batch_scaler": estimate_max_memory_scaler(tsm),
                    "scaler": memory_scaler(state),
                }
            )
    return rows


def out_of_memory(machine):
    """Relaxations go on when the memory does not suffice for the batch: a limit below what it takes."""
    if not machine.is_cuda:
        return {"skipped": "needs a GPU"}
    images = structures() * 4
    relaxation = Relaxation(machine.model(), max_steps=5)
    relaxation._max_scaler = lambda: float("inf")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_allocated() + 6e8) / total))
    try:
        result = relaxation.run(images)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {"structures": len(images), "failed": sum(r.status == "failed" for r in result)}


def dynamics(machine):
    """Milliseconds per step, and waits per step, of frozen, adiabatic and precessing moments."""
    atoms = bulk("Fe", "bcc", a=2.85, cubic=True).repeat((2, 2, 2) if machine.quick else (6, 6, 6))
    rng = np.random.default_rng(0)
    set_magmoms(atoms, rng.normal([0, 0, 2.2], 0.2, (len(atoms), 3)))
    rows, n_steps = [], 2 if machine.quick else 10
    for spins in ("frozen", "adiabatic", "llg"):
        md = MolecularDynamics(
            machine.model(), n_steps=n_steps, record_every=n_steps, spins=spins, temperature=300.0
        )
        state = md.start(atoms, 1)
        state = md.step(md.step(state))
        box = [state]

        def step(md=md, box=box):
            box[0] = md.step(box[0])

        seconds, _ = machine.seconds(step, n_steps)
        rows.append(
            {"atoms": len(atoms), "spins": spins, "ms_per_step": 1e3 * seconds, "waits": machine.waits(step)}
        )
    return rows


def monte_carlo(machine):
    """A trajectory of hybrid Monte Carlo of bcc iron, 3,456 atoms, one and four chains."""
    n = 2 if machine.quick else 12
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True).repeat(n)
    set_magmoms(atoms, np.tile([0.0, 0.0, 2.2], (len(atoms), 1)))
    rows = []
    for temperatures in ((900.0,), (900.0, 1000.0, 1050.0, 1100.0)):
        cells = Supercells(machine.model(torch.float32), [atoms], [Chain(t) for t in temperatures])
        sampler = HybridMonteCarlo(cells, n_steps=2 if machine.quick else 8, step=0.05)
        seconds, _ = machine.seconds(lambda sampler=sampler: sampler.advance(0, 1), 2)
        rows.append({"atoms": len(atoms), "chains": len(temperatures), "seconds_per_trajectory": seconds})
    return rows


def neighbours(machine):
    """Pairs of large crystals by our cell list on the device."""
    rows = []
    for n in (4,) if machine.quick else (8, 17, 30):
        atoms = bulk("Fe", "bcc", a=2.87, cubic=True).repeat(n)
        where = {"dtype": torch.float64, "device": machine.device}
        box = (
            torch.as_tensor(atoms.positions, **where),
            torch.as_tensor(atoms.cell.array[None], **where),
            torch.ones(1, 3, dtype=torch.bool, device=machine.device),
            torch.zeros(len(atoms), dtype=torch.long, device=machine.device),
        )
        seconds, pairs = machine.seconds(lambda box=box: neighbor_list(*box, 5.5, backend="torch"), 3)
        rows.append({"atoms": len(atoms), "pairs": pairs[0].shape[1], "ms": 1e3 * seconds})
    return rows


PARTS = (
    same_numbers,
    neighbours,
    evaluation,
    dynamics,
    monte_carlo,
    memory,
    relaxations,
    out_of_memory,
    compiled,
)


def figure(found, folder):
    """What a GPU does in a second, as bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in found.get("relaxations", []) if isinstance(row, dict)]
    if not rows:
        return
    fig, axes = plt.subplots(figsize=(3.4, 2.6), layout="constrained")
    names = [f"{row['structures']}\n{row['magmoms']}" for row in rows]
    axes.bar(names, [row["per_second"] for row in rows], color="0.5")
    axes.set_ylabel("structures per second")
    for suffix in ("png", "svg"):
        fig.savefig(folder / f"gpu.{suffix}", dpi=160)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="try the script: the smallest of everything")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", help="names, joined by commas")
    options = parser.parse_args()
    if options.quick:
        torch.set_num_threads(1)
    machine = Machine(options.device, quick=options.quick)
    options.out.mkdir(parents=True, exist_ok=True)
    found = {"environment": environment(), "device": options.device, "quick": options.quick, "seconds": {}}
    wanted = options.parts.split(",") if options.parts else [part.__name__ for part in PARTS]
    for part in PARTS:
        if part.__name__ not in wanted:
            continue
        start = time.perf_counter()
        try:
            found[part.__name__] = part(machine)
        except Exception as error:
            found[part.__name__] = {
                "failed": f"{type(error).__name__}: {error}",
                "where": traceback.format_exc()[-1500:],
            }
        found["seconds"][part.__name__] = round(time.perf_counter() - start, 1)
        (options.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    figure(found, options.out)


if __name__ == "__main__":
    main()

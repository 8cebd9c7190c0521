"""One part of what is measured on a GPU, in a process of its own; ``measure.py`` starts it.

A part yields rows. Each goes into a file as soon as it is there, one JSON object a line, so that what was measured before a
part fails, hangs or breaks CUDA is kept.
"""

import argparse
import contextlib
import importlib
import json
import logging
import statistics
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from record import MODEL, environment
from test_batched_relaxation import structures

import mmace_sim
from mmace_sim.engine import batching
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.neighbors import neighbor_list
from mmace_sim.properties.md.dynamics import MolecularDynamics
from mmace_sim.properties.relax.relaxation import Relaxation
from mmace_sim.sampling.chains import Chain
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.surface import Supercells
from mmace_sim.torchsim.memory import bytes_per_edge, estimate_max_memory_scaler, memory_scaler
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import initialize_state

TIMES = 5
ALLOWED_BYTES = 1.5e8
"""Memory left to relaxations that shall run out of it; a quarter of what they take where that is less."""


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

    def ms(self, function):
        return 1e3 * self.seconds(function)[0]

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
        return mmace_sim.load_model(MODEL, device=self.device, dtype=dtype)


def same_numbers(machine):
    """Energies and derivatives on the device against the CPU in float64, and of lower precisions."""
    images = structures()[:8]
    reference = MagneticMaceModel(MODEL)(initialize_state(images, device="cpu"))
    for dtype in ("float64", "float32"):
        kind = getattr(torch, dtype)
        tsm = MagneticMaceModel(machine.model(kind), skin=0.5, backend="torch")
        out = tsm(initialize_state(images, device=machine.device, dtype=kind))
        keys = ("energy", "forces", "stress", "magforces")
        yield {"dtype": dtype} | {
            key: float((out[key].double().cpu() - reference[key]).abs().max()) for key in keys
        }


def relaxations(machine):
    """Structures per second of 1,000 and 10,000 two-atom cells, and how often pairs were searched for."""
    Relaxation(machine.model(), max_steps=1).run(structures()[:2])  # warms up
    for n, magmoms in (
        ((8, "joint"), (8, "adiabatic"))
        if machine.quick
        else ((1000, "joint"), (1000, "adiabatic"), (10000, "joint"))
    ):
        images = (structures() * (n // 64 + 1))[:n]
        relaxation = Relaxation(
            machine.model(), magmoms=magmoms, stress_tol=0.1, **({"max_steps": 3} if machine.quick else {})
        )
        machine.wait()
        start = time.perf_counter()
        result = relaxation.run(images)
        machine.wait()
        seconds = time.perf_counter() - start
        yield {
            "structures": n,
            "magmoms": magmoms,
            "seconds": seconds,
            "per_second": n / seconds,
            "converged": result.n_converged,
            "searches_for_pairs": relaxation.bare_model.pairs.n_searches,
        }


def memory(machine):
    """Memory of a step against its estimate, and what the autobatcher would take."""
    for repeats in (2,) if machine.quick else (3, 5):
        crystal = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(repeats)
        crystal.rattle(0.05, seed=0)
        set_magmoms(crystal, np.random.default_rng(0).normal([0, 0, 2.2], 0.3, (len(crystal), 3)))
        for dtype in (torch.float32, torch.float64):
            tsm = MagneticMaceModel(machine.model(dtype))
            images = [crystal] * (1 if machine.quick else 16)
            state = initialize_state(images, device=machine.device, dtype=dtype)
            tsm(state)
            with machine.peak() as peak:
                tsm(state)
            edges = tsm.graph(state).edge_index.shape[1]
            yield {
                "atoms": len(crystal),
                "dtype": str(dtype),
                "edges": edges,
                "bytes_per_edge": peak["bytes"] and peak["bytes"] / edges,
                "estimate_per_edge": bytes_per_edge(tsm.model.config, dtype),
                "batch_scaler": estimate_max_memory_scaler(tsm),
                "scaler": memory_scaler(state),
            }


def out_of_memory(machine):
    """Relaxations go on when the memory does not suffice for the batch: all of them, by halving it at least once."""
    images = structures()[:8] if machine.quick else structures() * 4
    relaxation = Relaxation(machine.model(), max_steps=2 if machine.quick else 5)
    relaxation._max_scaler = lambda: float("inf")
    with machine.peak() as peak:
        if machine.is_cuda:
            Relaxation(relaxation.bare_model, max_steps=1).run(images)
    allowed = min(ALLOWED_BYTES, peak["bytes"] / 4) if machine.is_cuda else None
    row = {"structures": len(images), "needed_bytes": peak["bytes"], "allowed_bytes": allowed}
    with _halvings() as halvings, _little_memory(machine, relaxation, allowed):
        result = relaxation.run(images)
    row |= {"halvings": len(halvings), "failed": sum(r.status == "failed" for r in result)}
    yield row
    if not halvings:
        raise RuntimeError("no batch was halved: the memory sufficed, so that this part has shown nothing")
    if row["failed"]:
        raise RuntimeError(
            f"{row['failed']} relaxations failed: {next(r.message for r in result if r.message)}"
        )


@contextlib.contextmanager
def _halvings():
    """Warnings of the batch that it was halved for lack of memory."""
    found = []

    class Listener(logging.Handler):
        def emit(self, record):
            if "OutOfMemoryError" in record.getMessage():
                found.append(record.getMessage())

    listener, logger = Listener(level=logging.WARNING), logging.getLogger(batching.__name__)
    logger.addHandler(listener)
    try:
        yield found
    finally:
        logger.removeHandler(listener)


@contextlib.contextmanager
def _little_memory(machine, relaxation, allowed):
    """Leaves some bytes beyond what is reserved; a CPU only pretends to have no room for more than four atoms."""
    if machine.is_cuda:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + allowed) / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return

    def refuse(_, arguments):
        if arguments[0].n_atoms > 4:
            raise torch.OutOfMemoryError("pretended")

    hook = relaxation.bare_model.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def dynamics(machine):
    """Milliseconds per step, and waits per step, of frozen, adiabatic and precessing moments."""
    atoms = bulk("Fe", "bcc", a=2.85, cubic=True).repeat((2, 2, 2) if machine.quick else (6, 6, 6))
    rng = np.random.default_rng(0)
    set_magmoms(atoms, rng.normal([0, 0, 2.2], 0.2, (len(atoms), 3)))
    n_steps = 2 if machine.quick else 10
    for spins in ("frozen", "adiabatic", "llg"):
        md = MolecularDynamics(
            machine.model(), n_steps=n_steps, record_every=n_steps, spins=spins, temperature=300.0
        )
        state = md.start(atoms, 1)
        box = [state if machine.quick else md.step(md.step(state))]

        def step(md=md, box=box):
            box[0] = md.step(box[0])

        seconds, _ = machine.seconds(step, n_steps)
        yield {
            "atoms": len(atoms),
            "spins": spins,
            "ms_per_step": 1e3 * seconds,
            "waits": machine.waits(step),
        }


def monte_carlo(machine):
    """A trajectory of hybrid Monte Carlo of bcc iron, 3,456 atoms, one and four chains."""
    n = 2 if machine.quick else 12
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True).repeat(n)
    set_magmoms(atoms, np.tile([0.0, 0.0, 2.2], (len(atoms), 1)))
    for temperatures in ((900.0,), (900.0, 1000.0, 1050.0, 1100.0)):
        cells = Supercells(machine.model(torch.float32), [atoms], [Chain(t) for t in temperatures])
        sampler = HybridMonteCarlo(cells, n_steps=2 if machine.quick else 8, step=0.05)
        seconds, _ = machine.seconds(lambda sampler=sampler: sampler.advance(0, 1), 2)
        yield {"atoms": len(atoms), "chains": len(temperatures), "seconds_per_trajectory": seconds}


def neighbours(machine):
    """Pairs of large crystals by our cell list on the device."""
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
        yield {"atoms": len(atoms), "pairs": pairs[0].shape[1], "ms": 1e3 * seconds}


PARTS = {
    part.__name__: part
    for part in (same_numbers, neighbours, dynamics, monte_carlo, memory, relaxations, out_of_memory)
}
AGAINST_MACE = ("evaluation", "training", "compiled")
"""Those of `against_mace.py`."""


def part_of(name):
    """The function of a part."""
    return PARTS[name] if name in PARTS else getattr(importlib.import_module("against_mace"), name)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, *AGAINST_MACE])
    parser.add_argument("--rows", type=Path, required=True, help="file that takes a line for each row")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="try the script: the smallest of everything")
    options = parser.parse_args()
    if options.quick:
        torch.set_num_threads(1)
    with options.rows.open("w") as file:

        def say(**entry):
            file.write(json.dumps(entry) + "\n")
            file.flush()

        try:
            say(environment=environment())
            for row in part_of(options.part)(Machine(options.device, quick=options.quick)):
                say(row=row)
        except Exception as error:
            say(end="failed", why=f"{type(error).__name__}: {error}", where=traceback.format_exc()[-1500:])
        else:
            say(end="done")


if __name__ == "__main__":
    main()

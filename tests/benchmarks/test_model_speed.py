"""One evaluation, and one training step, of our models against an ordinary MACE of the same size.

$ OMP_NUM_THREADS=2 python -m pytest tests/benchmarks/test_model_speed.py --override-ini addopts=

MMACE_BENCH_SIZES=a,b and MMACE_BENCH_ATOMS=16,54 choose fewer rows. Every row interleaves all its models.
"""

import multiprocessing
import os
import statistics
import time
from pathlib import Path

import model_sizes as ms
import pytest
import torch
from record import write
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mmace_sim.base.allocator import keep_freed_memory

SIZES = os.environ.get("MMACE_BENCH_SIZES", "a,b,c").split(",")
ATOMS = [int(n) for n in os.environ.get("MMACE_BENCH_ATOMS", "16,54,128,250").split(",")]
DTYPES = ("float32", "float64")
SECONDS_PER_ROW = 6.0
MIN_ROUNDS, MAX_ROUNDS = 3, 30

OURS = {
    "ours": {},
    "ours, highest moment order": {"spin_max_ell": 3, "spin_channels": None},
    "ours, spin-orbit": {"spin_orbit": True},
}
"""Changes of the configuration; spin_channels None: as many as the model has channels."""
PAPER = {"paper, l_mag 1": {"max_m_ell": 1}, "paper, l_mag 3": {"max_m_ell": 3}}


def interleaved(steps):
    """Median time of each step, in ms, and median of its ratio to the first, over rounds that run all of them."""
    times = {name: [] for name in steps}
    for step in steps.values():
        step()
    start = time.perf_counter()
    while len(times["mace"]) < MIN_ROUNDS or (
        time.perf_counter() - start < SECONDS_PER_ROW and len(times["mace"]) < MAX_ROUNDS
    ):
        for name, step in steps.items():
            before = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - before)
    result = {}
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, times["mace"], strict=True)]
        result[name] = {
            "ms": round(1e3 * statistics.median(values), 2),
            "ratio": round(statistics.median(ratios), 3),
        }
    return result


def models(size, dtype, *, paper):
    """Our models of one size, by name."""
    out = {}
    for name, changes in OURS.items():
        given = dict(changes)
        if "spin_channels" in given:
            given["spin_channels"] = int(ms.SIZES[size]["hidden_irreps"].split("x")[0])
        out[name] = ms.ours(size, dtype, **given)
    if paper:
        out.update({name: ms.paper(size, dtype, **changes) for name, changes in PAPER.items()})
    return out


def measure(size, dtype_name, n_threads, images, *, training):
    """One row of a table."""
    dtype, r_max = getattr(torch, dtype_name), ms.SIZES[size]["r_max"]
    torch.set_num_threads(n_threads)
    graph = ms.graph(images, r_max, dtype)
    make_yardstick = ms.yardstick_training if training else ms.yardstick_inference
    make = ms.training if training else ms.inference
    steps = {"mace": make_yardstick(ms.yardstick(size, dtype), ms.yardstick_batch(images, r_max, dtype))}
    for name, model in models(size, dtype, paper=sum(map(len, images)) <= 128).items():
        model.requires_grad_(training)
        steps[name] = make(model, graph)
    return {
        "size": size,
        "dtype": dtype_name,
        "threads": n_threads,
        "atoms": "+".join(str(len(image)) for image in images[:1]),
        "structures": len(images),
        "pairs": graph.edge_index.shape[1],
        **interleaved(steps),
    }


def rows(cells, *, training):
    """All rows of a table."""
    threads = sorted({1, min(2, os.cpu_count() or 1)})
    out = [
        measure(size, dtype, n, images, training=training)
        for size in SIZES
        for images in cells
        for dtype in DTYPES
        for n in threads
    ]
    torch.set_num_threads(1)
    return out


def worst(table):
    """Largest ratio of each model and size."""
    names = [*OURS, *PAPER]
    return {
        size: {
            name: max(row[name]["ratio"] for row in table if row["size"] == size and name in row)
            for name in names
            if any(row["size"] == size and name in row for row in table)
        }
        for size in SIZES
    }


def test_inference():
    """Energy, forces, stress and, for ours, magforces."""
    table = rows([[ms.iron(n)] for n in ATOMS], training=False)
    write("model_inference", {"largest_ratio": worst(table), "rows": table})


def test_training_step():
    """Loss of energy, forces, stress and, for ours, magforces; backward; Adam."""
    table = rows([[ms.iron(n, seed=k) for k in range(8)] for n in (2, 16)], training=True)
    write("model_training_step", {"largest_ratio": worst(table), "rows": table})


def peak_memory(size, name, n_atoms):
    """Memory that one evaluation needs beyond what the process had, in MiB; run in a process of its own."""
    torch.set_num_threads(1)
    images, r_max = [ms.iron(n_atoms)], ms.SIZES[size]["r_max"]
    if name == "mace":
        small = ms.yardstick_batch([ms.iron(2)], r_max, torch.float32)
        batch = ms.yardstick_batch(images, r_max, torch.float32)
        model = ms.yardstick(size, torch.float32)
        warm, step = ms.yardstick_inference(model, small), ms.yardstick_inference(model, batch)
    else:
        model = models(size, torch.float32, paper=True)[name].requires_grad_(requires_grad=False)
        warm = ms.inference(model, ms.graph([ms.iron(2)], r_max, torch.float32))
        step = ms.inference(model, ms.graph(images, r_max, torch.float32))
    for _ in range(3):
        warm()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing and building
    before = resident()
    step()
    return resident("VmHWM") - before


def resident(entry="VmRSS"):
    """Resident memory of this process, or its peak, in MiB (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("n_atoms", [250])
def test_peak_memory(n_atoms):
    """Peak memory of one evaluation in float32."""
    table = []
    for size in SIZES:
        row = {"size": size, "atoms": n_atoms}
        for name in ("mace", *OURS, *PAPER):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row[name] = {"MiB": round(pool.apply(peak_memory, (size, name, n_atoms)), 1)}
        for name in (*OURS, *PAPER):
            row[name]["ratio"] = round(row[name]["MiB"] / row["mace"]["MiB"], 3)
        table.append(row)
    write("model_memory", {"rows": table})


def times_per_atom(*, keep):
    """Time per atom from 128 to 10⁴ atoms; run in a process of its own, with or without keeping freed memory."""
    torch.set_num_threads(1)
    if keep and not keep_freed_memory():
        return []
    model = ms.ours("a", torch.float32).requires_grad_(requires_grad=False)
    table = []
    for repeats in (4, 6, 8, 12, 17):
        images = [ms.iron(2).repeat((repeats,) * 3)]
        start = time.perf_counter()
        graph = ms.graph(images, model.r_max, torch.float32)
        pairs = time.perf_counter() - start
        step = ms.inference(model, graph)
        step()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        n = len(images[0])
        table.append(
            {
                "atoms": n,
                "ms_per_atom": round(1e3 * statistics.median(times) / n, 4),
                "neighbour_list_ms_per_atom": round(1e3 * pairs / n, 4),
            }
        )
    return table


def test_scaling():
    """Time per atom of our model, size a in float32, from 128 to 10⁴ atoms."""
    results = {}
    for key, keep in (("rows", True), ("rows_default_allocator", False)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[key] = pool.apply(times_per_atom, kwds={"keep": keep})
    write("model_scaling", results)


PARTS = {
    "sums over neighbours": ("aten::bmm", "aten::baddbmm"),
    "radial network and linear maps": ("aten::mm", "aten::addmm"),
    "element by element": ("aten::mul", "aten::add", "aten::add_", "aten::silu", "aten::silu_backward", "aten::sum"),
    "gather and scatter": ("aten::index_select", "aten::index_add_", "aten::index", "aten::_index_put_impl_"),
    "copies": ("aten::copy_", "aten::cat", "aten::fill_", "aten::zero_"),
}  # fmt: skip
"""Kinds of operations by their names in torch's profiler."""


class _Count(TorchDispatchMode):
    """Bytes that operations read and write, views left out, and floating-point operations of matrix products."""

    def __init__(self):
        super().__init__()
        self.bytes = self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        if not any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns):
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def limits_of_this_machine():
    """Floating-point operations (float32 matrix product) and bytes moved (copy) per second."""
    a, source, target = torch.randn(1024, 1024), torch.randn(2**24), torch.empty(2**24)
    best = {"mm": float("inf"), "copy": float("inf")}
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        best["mm"] = min(best["mm"], time.perf_counter() - start)
        start = time.perf_counter()
        target.copy_(source)
        best["copy"] = min(best["copy"], time.perf_counter() - start)
    return 2 * 1024**3 / best["mm"], 2 * source.numel() * 4 / best["copy"]


@pytest.mark.parametrize("n_atoms", [54])
def test_profile(n_atoms):
    """Where the time of one evaluation goes, and the floors that arithmetic and memory traffic set."""
    torch.set_num_threads(1)
    flops_per_second, bytes_per_second = limits_of_this_machine()
    table = []
    for size in SIZES:
        for name, model in models(size, torch.float32, paper=True).items():
            model.requires_grad_(requires_grad=False)
            step = ms.inference(model, ms.graph([ms.iron(n_atoms)], model.r_max, torch.float32))
            for _ in range(3):
                step()
            times = []
            for _ in range(7):
                start = time.perf_counter()
                step()
                times.append(time.perf_counter() - start)
            with _Count() as count:
                step()
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                step()
            own = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
            total = sum(own.values())
            shares = {part: sum(own.get(op, 0.0) for op in ops) / total for part, ops in PARTS.items()}
            shares["dispatch and the rest"] = 1.0 - sum(shares.values())
            table.append(
                {
                    "size": size,
                    "model": name,
                    "atoms": n_atoms,
                    "ms": round(1e3 * statistics.median(times), 2),
                    "gflop": round(count.flops / 1e9, 3),
                    "gbyte": round(count.bytes / 1e9, 3),
                    "floor_of_flops_ms": round(1e3 * count.flops / flops_per_second, 2),
                    "floor_of_bytes_ms": round(1e3 * count.bytes / bytes_per_second, 2),
                    "shares": {part: round(value, 3) for part, value in shares.items()},
                }
            )
    machine = {
        "gflop_per_second": round(flops_per_second / 1e9, 1),
        "gbyte_per_second": round(bytes_per_second / 1e9, 1),
    }
    write("model_profile", {"machine": machine, "rows": table})

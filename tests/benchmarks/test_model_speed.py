"""One evaluation, and one training step, of our models against an ordinary MACE of the same size.

$ OMP_NUM_THREADS=2 python -m pytest tests/benchmarks/test_model_speed.py --override-ini addopts=

MMACE_BENCH_SIZES=a,b and MMACE_BENCH_ATOMS=16,54 choose fewer rows. Every row interleaves all its models.
"""

import multiprocessing
import os
import resource
import statistics
import time

import model_sizes as ms
import pytest
import torch
from record import write

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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


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


def test_scaling():
    """Time per atom of our model, size a in float32, from 128 to 10⁴ atoms."""
    torch.set_num_threads(1)
    model = ms.ours("a", torch.float32).requires_grad_(requires_grad=False)
    table = []
    for repeats in (4, 6, 8, 12, 17):
        images = [ms.iron(2).repeat((repeats,) * 3)]
        graph = ms.graph(images, model.r_max, torch.float32)
        start = time.perf_counter()
        ms.graph(images, model.r_max, torch.float32)
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
    write("model_scaling", {"rows": table})

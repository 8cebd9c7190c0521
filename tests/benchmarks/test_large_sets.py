"""A set larger than memory should be: 400,000 structures from LMDB; and what neighbour lists cost, kept or made anew.

Seconds are those of the processor (one thread) unless called wall, so that a busy machine matters less. Memory is what the
process and the workers it starts hold: the sum of their proportional set sizes, sampled, and the part without file pages.
"""

import gc
import itertools
import os
import threading
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from record import write

from mmace_sim.training.config import DataConfig, TrainConfig
from mmace_sim.training.dataset import GraphDataset, make_loader
from mmace_sim.training.formats.database import atoms_to_row, write_database
from mmace_sim.training.frames import read_frames
from mmace_sim.training.module import MagneticTraining
from mmace_sim.training.stream import open_frames
from mmace_sim.training.trainer import prepare

N = int(os.environ.get("MMACE_BENCHMARK_STRUCTURES", "400000"))
N_READ = int(os.environ.get("MMACE_BENCHMARK_READ", str(N)))
N_DISTINCT = 4000
N_SMALL = 2000
N_STEPS = 200
BATCH = 32
MODEL = {
    "hidden_irreps": "8x0e",
    "MLP_irreps": "8x0e",
    "spin_channels": 4,
    "spin_max_ell": 1,
    "max_ell": 1,
    "r_max": 4.0,
    "num_interactions": 1,
    "radial_mlp": [16],
    "correlation": 2,
}


def rows(n):
    """`n` cells of 2 to 4 atoms, `N_DISTINCT` of them distinct, each with a name of its own."""
    distinct = list(random_rows(min(n, N_DISTINCT)))
    for k in range(n):
        row = distinct[k % len(distinct)]
        data = row["data"] | {"info": {"config_type": f"kind{k % 7}", "config_id": f"random_{k}"}}
        yield row | {"data": data}


def random_rows(n):
    """Cells of 2 to 4 atoms of Fe, Ni and Al with all labels, random but for their size."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        n_atoms = int(rng.integers(2, 5))
        a = (12.0 * n_atoms) ** (1 / 3) * rng.uniform(0.95, 1.05)
        grid = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0, 0.5, 0.5]])[:n_atoms]
        cell = np.diag([a, a, a]) + rng.normal(0, 0.05, (3, 3))
        atoms = Atoms(rng.choice([26, 28, 13], n_atoms), positions=grid @ cell, cell=cell, pbc=True)
        atoms.positions += rng.normal(0, 0.05, (n_atoms, 3))
        labels = {
            "energy": np.array(-8.0 * n_atoms + rng.normal(0, 0.1)),
            "forces": rng.normal(0, 0.3, (n_atoms, 3)),
            "stress": np.diag(rng.normal(0, 0.01, 3)),
            "magforces": rng.normal(0, 0.05, (n_atoms, 3)),
        }
        yield atoms_to_row(atoms, rng.normal(0, 1.0, (n_atoms, 3)), labels, {})


class Memory:
    """Largest memory of this process and its children, sampled in a thread."""

    def __init__(self):
        self.total = self.own = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(2.0):
            parts = [process_memory(pid) for pid in (os.getpid(), *children(os.getpid()))]
            self.total = max(self.total, sum(p[0] for p in parts))
            self.own = max(self.own, sum(p[1] for p in parts))


def process_memory(pid):
    """Proportional set size and its part without file pages, in GB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split(":")[0]: float(line.split()[1]) / 1e6 for line in lines if line.endswith("kB")}
    return sizes["Pss"], sizes["Pss_Anon"]


def children(pid):
    try:
        return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def timed(act):
    """Result, seconds of the processor and of the wall."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = act()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def test_large_set(tmp_path):
    torch.set_num_threads(1)
    path = Path(os.environ.get("MMACE_BENCHMARK_SET", tmp_path / "large.aselmdb"))
    written = timed(lambda: write_database(path, rows(N)))[1:] if not path.exists() else (None, None)
    config = TrainConfig(
        data=DataConfig(train_file=[path], valid_fraction=0.05, stream=True),
        model=MODEL,
        trainer={"batch_size": BATCH, "num_threads": 1},
    )
    results = {
        "structures": N,
        "atoms_per_structure": "2-4",
        "bytes_per_structure_on_disk": path.stat().st_size / N,
        "write_cpu_s": written[0],
    }

    def report(memory, **more):  # after each part, as the whole takes long
        results.update(peak_memory_gb=memory.total, peak_memory_without_file_pages_gb=memory.own, **more)
        write("large_sets", results)

    with Memory() as memory:
        run, cpu, wall = timed(lambda: prepare(config))
        results["train_valid"] = [len(run.train_set), len(run.valid_set)]
        report(memory, first_pass_splits_fit_cpu_s=cpu, first_pass_splits_fit_wall_s=wall)
        loader = make_loader(run.train_set, BATCH, shuffle_seed=0)
        module = MagneticTraining(run.model, run.config, run.train_set, run.train_set.config_types)
        _, cpu, wall = timed(lambda: steps(module, loader))
        report(
            memory, training_steps=N_STEPS, training_steps_main_process_cpu_s=cpu, training_steps_wall_s=wall
        )
        wanted = min(N_READ, len(run.train_set)) // BATCH
        batches = itertools.islice(loader, wanted)
        count, cpu, wall = timed(lambda: sum(len(batch.n_atoms) for batch in batches))
        report(memory, workers=loader.num_workers, read=count, read_main_process_cpu_s=cpu, read_wall_s=wall)
    assert memory.own < 4.0


def steps(module, loader):
    """Some steps of training on batches of the loader."""
    from mmace_sim.training.module import predict

    optimizer = torch.optim.Adam(module.model.parameters(), lr=1e-3)
    labels = {term.label for term in module.loss.terms}
    for _, batch in zip(range(N_STEPS), loader, strict=False):
        optimizer.zero_grad()
        sums = module.loss.sums(predict(module.model, batch, labels, training=True), batch)
        module.loss.total(sums[:, 0], sums[:, 1]).backward()
        optimizer.step()


def test_neighbor_lists(tmp_path):
    """Kept in memory, made when needed in the main process, and in one or two workers."""
    torch.set_num_threads(1)
    path = tmp_path / "small.aselmdb"
    write_database(path, rows(N_SMALL))
    results = {}
    gc.collect()
    before = process_memory(os.getpid())[1]
    frames, cpu_read, _ = timed(lambda: read_frames([path]).frames)
    kept, cpu_build, _ = timed(lambda: GraphDataset(frames, MODEL["r_max"], dtype=torch.float32))
    results["kept_kb_per_structure"] = (process_memory(os.getpid())[1] - before) * 1e6 / N_SMALL
    results["kept_read_us"], results["kept_build_us"] = (1e6 * s / N_SMALL for s in (cpu_read, cpu_build))
    stored = open_frames([path], DataConfig().keys, "default", stream=True)
    streamed = GraphDataset(stored, MODEL["r_max"], dtype=torch.float32)
    rebuilt = GraphDataset(frames, MODEL["r_max"], dtype=torch.float32, keep=False)
    cases = {"kept": (kept, 0), "rebuilt": (rebuilt, 0), "from_disk": (streamed, 0)}
    cases |= {"from_disk_1_worker": (streamed, 1), "from_disk_2_workers": (streamed, 2)}
    for name, (data, workers) in cases.items():
        loader = make_loader(data, BATCH, shuffle_seed=0, num_workers=workers)
        _, cpu, wall = timed(lambda loader=loader: [None for _ in loader])
        results[f"{name}_main_process_cpu_us"] = 1e6 * cpu / N_SMALL
        results[f"{name}_wall_us"] = 1e6 * wall / N_SMALL
    write("neighbor_lists_while_training", {"structures": N_SMALL, "batch_size": BATCH} | results)

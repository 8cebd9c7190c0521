"""A whole epoch over 400,000 structures in LMDB; and what neighbour lists cost, kept or made anew.

Seconds are those of the processor (one thread) unless called wall, so that a busy machine matters less. Memory is what the
process and the workers it starts hold, sampled: the sum of their resident sizes (which counts pages that they share several
times), of their proportional ones, and the part of these without file pages.
"""

import os
import resource
import threading
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from record import write

from mmace_sim.io.database import atoms_to_row, write_database
from mmace_sim.io.frames import read_frames
from mmace_sim.training.config import DataConfig, TrainConfig
from mmace_sim.training.data.dataset import GraphDataset, make_loader
from mmace_sim.training.data.stream import open_frames
from mmace_sim.training.module import MagneticTraining, predict
from mmace_sim.training.trainer import prepare, train

N = int(os.environ.get("MMACE_BENCHMARK_STRUCTURES", "400000"))
N_DISTINCT = 4000
N_SMALL = 1000
N_ROUNDS = 5
FCC = Path(__file__).parents[3] / "shared" / "data" / "fe_fcc_deltaspin"
LARGE_BATCH = 1024
BATCH = 32
MODEL = {
    "hidden_irreps": "8x0e",
    "MLP_irreps": "8x0e",
    "spin_channels": 4,
    "spin_max_ell": 1,
    "max_ell": 1,
    "r_max": 3.5,
    "num_interactions": 1,
    "radial_mlp": [16],
    "correlation": 2,
}


def rows(n):
    """`n` cells of two atoms, `N_DISTINCT` of them distinct, each with a name of its own."""
    distinct = list(random_rows(min(n, N_DISTINCT)))
    for k in range(n):
        row = distinct[k % len(distinct)]
        data = row["data"] | {"info": {"config_type": f"kind{k % 7}", "config_id": f"random_{k}"}}
        yield row | {"data": data}


def random_rows(n):
    """Cells of two atoms of Fe, Ni and Al with all labels, random but for their size."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        n_atoms = 2
        a = (12.0 * n_atoms) ** (1 / 3) * rng.uniform(0.95, 1.05)
        grid = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
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

    FIELDS = ("Rss", "Pss", "Pss_Anon")

    def __init__(self):
        self.peak = dict.fromkeys(self.FIELDS, 0.0)
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
            now = {name: sum(part[name] for part in parts) for name in self.FIELDS}
            self.peak = {name: max(self.peak[name], now[name]) for name in self.FIELDS}

    def as_dict(self):
        return {
            "peak_rss_gb": self.peak["Rss"],
            "peak_pss_gb": self.peak["Pss"],
            "peak_pss_without_file_pages_gb": self.peak["Pss_Anon"],
        }


def process_memory(pid):
    """Resident and proportional set size, and the part of the latter without file pages, in GB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return dict.fromkeys(Memory.FIELDS, 0.0)
    sizes = {line.split(":")[0]: float(line.split()[1]) / 1e6 for line in lines if line.endswith("kB")}
    return {name: sizes[name] for name in Memory.FIELDS}


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


class Clock:
    """Seconds of the processor and of the wall at the first and at the last step."""

    def __init__(self):
        self.marks = [self.now()]

    def now(self):
        workers = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter(), time.process_time(), workers.ru_utime + workers.ru_stime

    def step(self, report):
        if report.step == 1:
            self.marks.append(self.now())
        self.report = report

    def epoch(self, _row):
        self.marks.append(self.now())

    def between(self, k):
        """Wall, main process and workers between two marks."""
        return [b - a for a, b in zip(self.marks[k], self.marks[k + 1], strict=True)]


def test_large_set(tmp_path):
    torch.set_num_threads(1)
    path = Path(os.environ.get("MMACE_BENCHMARK_SET", tmp_path / "large.aselmdb"))
    written = timed(lambda: write_database(path, rows(N)))[1] if not path.exists() else None
    config = TrainConfig(
        data=DataConfig(train_file=[path], valid_fraction=0.01, stream=True),
        model=MODEL,
        trainer={"max_epochs": 1, "batch_size": LARGE_BATCH, "valid_batch_size": 256, "num_threads": 1},
    )
    clock = Clock()
    with Memory() as memory:
        result = train(config, tmp_path, on_step=clock.step, on_epoch=clock.epoch)
    clock.marks.append(clock.now())
    before, epoch, after = (clock.between(k) for k in range(3))
    n_train = clock.report.n_steps * LARGE_BATCH
    write(
        "large_sets",
        {
            "structures": N,
            "atoms_per_structure": 2,
            "model": MODEL,
            "batch_size": LARGE_BATCH,
            "n_weights": sum(p.numel() for p in result.model.parameters()),
            "bytes_per_structure_on_disk": path.stat().st_size / N,
            "write_cpu_s": written,
            "first_pass_splits_fits_and_first_step": {"wall_s": before[0], "main_process_cpu_s": before[1]},
            "epoch_and_validation": {
                "wall_s": epoch[0],
                "main_process_cpu_s": epoch[1],
                "workers_cpu_s": epoch[2],
            },
            "final_errors": {"wall_s": after[0], "main_process_cpu_s": after[1], "workers_cpu_s": after[2]},
            "steps": clock.report.n_steps,
            "structures_per_wall_s": n_train / epoch[0],
            "structures_per_main_process_cpu_s": n_train / epoch[1],
            **memory.as_dict(),
        },
    )
    assert memory.peak["Rss"] < 4.0


def epoch(module, data, batch_size, workers):
    """Microseconds per structure of an epoch with training steps: wall, main process, worker processes."""
    loader = make_loader(data, batch_size, shuffle_seed=0, num_workers=workers)
    labels = {term.label for term in module.loss.terms}
    clock = Clock()
    for batch in loader:
        module.zero_grad()
        sums = module.loss.sums(predict(module.model, batch, labels, training=True), batch)
        module.loss.total(sums[:, 0], sums[:, 1]).backward()
    clock.marks.append(clock.now())
    return [1e6 * seconds / len(data) for seconds in clock.between(0)]


def compare(config, sets, batch_size):
    """Medians over interleaved epochs of every case."""
    module = MagneticTraining(prepare(config).model, config, sets["kept"][0], sets["kept"][0].config_types)
    runs = {name: [] for name in sets}
    for _ in range(N_ROUNDS):
        for name, (data, workers) in sets.items():
            runs[name].append(epoch(module, data, batch_size, workers))
    columns = ("wall_us", "main_process_cpu_us", "workers_cpu_us")
    return {
        name: dict(zip(columns, np.median(rows, axis=0).tolist(), strict=True)) for name, rows in runs.items()
    }


def test_neighbor_lists(tmp_path):
    """Found once and kept, found when needed in the main process, and in one or two workers."""
    torch.set_num_threads(1)
    path = tmp_path / "streamed.aselmdb"
    write_database(path, rows(N_SMALL))
    results = {"rounds": N_ROUNDS, "model": MODEL}
    cases = {"fe_fcc_deltaspin": ([FCC / "valid.extxyz"], 8), "streamed": ([path], BATCH)}
    for name, (paths, batch_size) in cases.items():
        data = DataConfig(train_file=paths, valid_fraction=0.0)
        config = TrainConfig(data=data, model=MODEL, trainer={"num_threads": 1, "dtype": "float32"})
        frames, read, _ = timed(lambda paths=paths: read_frames(paths).frames)
        stored = frames if name != "streamed" else open_frames(paths, data.keys, "default", stream=True)
        kept, build, _ = timed(
            lambda frames=frames: GraphDataset(frames, MODEL["r_max"], dtype=torch.float32)
        )
        anew = GraphDataset(stored, MODEL["r_max"], dtype=torch.float32, keep=False)
        sets = {"kept": (kept, 0), "anew": (anew, 0), "anew_1_worker": (anew, 1), "anew_2_workers": (anew, 2)}
        results[name] = {
            "structures": len(frames),
            "atoms": len(frames[0].atoms),
            "batch_size": batch_size,
            "read_cpu_us": 1e6 * read / len(frames),
            "build_cpu_us": 1e6 * build / len(frames),
            "epochs": compare(config, sets, batch_size),
        }
        write("neighbor_lists_while_training", results)

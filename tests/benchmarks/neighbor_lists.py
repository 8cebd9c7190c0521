"""Time of neighbour lists against the number of atoms: ours on the CPU, ours for GPUs run on the CPU, TorchSim's default.

Run by hand: ``OMP_NUM_THREADS=1 python tests/benchmarks/neighbor_lists.py [--device cuda] [--quick]``; writes
``docs/benchmarks/neighbor_lists.json``.
"""

import argparse
import time

import torch
import torch_sim as ts
from ase.build import bulk
from record import write

from mmace_sim.graph.neighbors import neighbor_list

R_MAX, QUADRATIC_UP_TO = 5.5, 10_000
REPEATS = (4, 8, 12, 17, 24, 30)


def crystal(n, device):
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True).repeat(n)
    atoms.rattle(0.05, seed=0)
    where = {"dtype": torch.float64, "device": device}
    return (
        torch.as_tensor(atoms.positions, **where),
        torch.as_tensor(atoms.cell.array[None], **where),
        torch.ones(1, 3, dtype=torch.bool, device=device),
        torch.zeros(len(atoms), dtype=torch.long, device=device),
    )


def seconds(function, n_times, device):
    function()
    found = []
    for _ in range(n_times):
        start = time.perf_counter() if device == "cuda" else time.process_time()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append((time.perf_counter() if device == "cuda" else time.process_time()) - start)
    return min(found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for n in REPEATS[:2] if options.quick else REPEATS:
        box = crystal(n, options.device)
        n_atoms, times = len(box[0]), 1 if options.quick else 3
        row = {"atoms": n_atoms}
        for backend in ("matscipy", "torch"):
            row[f"{backend}_ms"] = round(
                1e3
                * seconds(
                    lambda b=backend, box=box: neighbor_list(*box, R_MAX, backend=b), times, options.device
                ),
                1,
            )
        if n_atoms <= QUADRATIC_UP_TO:
            quadratic = (box[0], box[1], box[2], R_MAX, box[3])
            row["torchsim_default_ms"] = round(
                1e3 * seconds(lambda q=quadratic: ts.neighbors.torchsim_nl(*q), times, options.device), 1
            )
        rows.append(row)
    if not options.quick:
        write("neighbor_lists", {"r_max": R_MAX, "device": options.device, "rows": rows})


if __name__ == "__main__":
    main()

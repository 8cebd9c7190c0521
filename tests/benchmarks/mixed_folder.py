"""A mixed folder relaxed by ``--model auto`` with a model of 89 elements of the published size and random weights.

    python tests/benchmarks/mixed_folder.py [--steps N] [--device cpu|cuda] [--small]

What is measured is speed and memory, not physics: the weights are random. The model is installed with `models add` into a
cache of its own, and every structure is relaxed for the same number of steps: known elements by the default model, the
others by the large one. Writes docs/benchmarks/mixed_folder.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.spacegroup import crystal

ELEMENTS = [z for z in range(1, 95) if z not in (84, 85, 86, 87, 88)]
"""89 elements: all up to plutonium but Po, At, Rn, Fr and Ra."""


def published_size(*, small: bool = False):
    """A model with the shape of the published checkpoint, random weights, and moments within 90 % of Hund's largest."""
    from mmace_sim.architectures.paper_mmace import PaperConfig, PaperMMACE

    torch.manual_seed(0)
    shape = (
        {"hidden_irreps": "8x0e+8x1o", "r_max": 4.0}
        if small
        else {"hidden_irreps": "128x0e+128x1o", "r_max": 6.0}
    )
    config = PaperConfig(
        atomic_numbers=ELEMENTS, num_interactions=2, max_ell=3, max_m_ell=1, correlation=3, num_bessel=8,
        num_moment_basis=8, radial_mlp=[64, 64, 64], distance_transform="agnesi", pair_repulsion=True,
        max_moment=dict.fromkeys(ELEMENTS, 6.0), **shape,
    )  # fmt: skip
    model = PaperMMACE(config)
    with torch.no_grad():
        model.scale.fill_(0.1)
    return model.requires_grad_(requires_grad=False).eval()


def structures():
    """Iron, NiO, FeAl, Mn3Pt and Cr2O3."""
    nio = make_supercell(bulk("NiO", "rocksalt", a=4.17), [[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    corners = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    return {
        "Fe": bulk("Fe", "bcc", a=2.83, cubic=True),
        "NiO": nio,
        "FeAl": bulk("FeAl", "cesiumchloride", a=2.91),
        "Mn3Pt": Atoms("PtMn3", scaled_positions=corners, cell=[3.83] * 3, pbc=True),
        "Cr2O3": crystal(
            ["Cr", "O"], [(0, 0, 0.3475), (0.3058, 0, 0.25)], spacegroup=167,
            cellpar=[4.96, 4.96, 13.59, 90, 90, 120], primitive_cell=True,
        ),
    }  # fmt: skip


def run(*arguments, cache):
    """A command of the program in a process of its own: CPU seconds, and the largest memory of any so far (GB)."""
    command = [sys.executable, "-m", "mmace_sim.cli.app", *map(str, arguments)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, env=os.environ | {"MMACE_SIM_CACHE": str(cache)}, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 3):  # a few steps are not enough
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return round(used, 2), round(after.ru_maxrss / 1e6, 3)


def measure(folder: Path, *, steps: int, device: str, small: bool):
    """Size, CPU seconds and memory of installing the model, of each structure, and of all in one run."""
    from mmace_sim.model.checkpoint import save_model

    file, cache = folder / "published_size.safetensors", folder / "cache"
    save_model(published_size(small=small), file, {"name": "published_size", "license": "none: random"})
    results = {"megabytes": file.stat().st_size / 1e6, "steps": steps, "device": device}
    results["install_cpu_s"], _ = run("models", "add", file, cache=cache)
    flags = ["--max-steps", steps, "--device", device, "--threads", 1, "--no-stability", "-q", "--force"]
    (folder / "all").mkdir()
    results["structures"] = {}
    for name, atoms in structures().items():
        atoms.write(folder / "all" / f"{name}.cif")
        used, _ = run("relax", folder / "all" / f"{name}.cif", "-o", folder / name, *flags, cache=cache)
        results["structures"][name] = {"n_atoms": len(atoms), "cpu_s": used}
    results["all_cpu_s"], results["peak_gb"] = run(
        "relax", folder / "all", "-o", folder / "out", *flags, cache=cache
    )
    for entry in json.loads((folder / "out" / "summary.json").read_text())["structures"]:
        results["structures"][Path(entry["file"]).stem] |= {
            "model": entry["model"],
            "status": entry["status"],
        }
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true", help="a model of 8 channels, to try the script out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place), steps=given.steps, device=given.device, small=given.small)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if not given.small:
        from record import write

        write("mixed_folder", found)

"""Rate of two workers against one process: many two-atom cells, a few steps each."""

import os
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from record import write

from mmace_sim.engine.lifecycle import run_property
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.relax import RELAX

N_STRUCTURES = int(os.environ.get("MMACE_BENCHMARK_STRUCTURES", "2000"))
N_STEPS = 5


def cells(path: Path) -> Path:
    rng = np.random.default_rng(0)
    images = []
    for k in range(N_STRUCTURES):
        atoms = bulk("Fe", "bcc", a=rng.uniform(2.78, 2.90), cubic=True)
        atoms.rattle(0.03, seed=k)
        set_magmoms(atoms, [2.2, 2.2])
        images.append(atoms)
    ase.io.write(path, images)
    return path


def test_two_workers(tmp_path):
    pytest.importorskip("parsl")
    torch.set_num_threads(1)
    path, seconds, energies = cells(tmp_path / "cells.extxyz"), {}, {}
    for name, executor in (("one", None), ("two", "local:2")):
        settings = RELAX.settings(
            paths=[str(path)], output=str(tmp_path / name), executor=executor, threads=1, max_steps=N_STEPS,
            stability=False,
        )  # fmt: skip
        start, load = time.monotonic(), os.getloadavg()[0]
        outcome = run_property(RELAX, settings, quiet=True)
        seconds[name] = {
            "seconds": time.monotonic() - start,
            "load_before": load,
            "load_after": os.getloadavg()[0],
        }
        energies[name] = [entry["energy"] for entry in outcome.summary["structures"]]
    np.testing.assert_allclose(energies["two"], energies["one"], rtol=0, atol=1e-8)
    ratio = seconds["one"]["seconds"] / seconds["two"]["seconds"]
    write(
        "workers",
        {"structures": N_STRUCTURES, "steps": N_STEPS, "cores": os.cpu_count(), **seconds, "ratio": ratio},
    )

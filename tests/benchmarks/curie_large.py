"""T_C of 3456 atoms of bcc iron, and what an independent sample of them costs: docs/benchmarks/curie_large.json.

iron.extxyz is the cube of two atoms, a = 2.83 Å, both with 2.249 μB along z. An hour of one core for the first run, some
minutes for the others, which are the same crystal in small cells by two kinds of moves:

    run="mmace-sim curie iron.extxyz --method direct --dtype float32 --seed 1 --threads 1"
    $run -o large --sizes 6,12 --n-steps 24 --temperatures 550,900,1000,1060,1120,1180,1320 --sweeps 100 --equilibration 20
    $run -o fixed --sizes 3,4 --n-steps 8 --temperatures 1000:1500:100 --sweeps 500 --equilibration 80
    $run -o local --sizes 3 --moves local --temperatures 1000,1200,1400 --sweeps 250 --equilibration 50
    python tests/benchmarks/curie_large.py large fixed local

A run that was killed goes on with --resume. Costs are processor times, measured in turn on the machine that reads the
runs; a sample costs τ trajectories, τ = 1 + 2 Σ ρ(t), since the error of a mean of n is sqrt(τ variance / n).
"""

import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from record import FOLDER, write
from test_curie import iron, seconds

import mmace_sim
from mmace_sim.model.derivatives import evaluate
from mmace_sim.plots import COLORS, MARKERS, add_legend, new_figure, save_figure
from mmace_sim.sampling.chains import replicas
from mmace_sim.sampling.correlation import _analysed
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.surface import Supercells

N_STEPS = 24
ROUNDS = 5
PANELS = {
    "order": "order |Σ s e|/n",
    "binder": "Binder cumulant",
    "susceptibility": "susceptibility (1/eV per spin)",
}


def autocorrelation(series: np.ndarray) -> dict[str, float]:
    """τ of one chain and its standard error (Wolff, equation 42)."""
    found = _analysed(series[:, None])
    return {"mean": found.time, "error": found.time * np.sqrt((4 * found.window + 2) / len(series))}


def times(folder: Path, n_equilibration: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """τ of energy and order of the largest size at each temperature, in trajectories."""
    (path,) = folder.glob("*/samples-1.npz")
    with np.load(path) as file:
        values = {key: file[f"value_{key}"][n_equilibration:, -1] for key in ("energy", "order")}
    return {key: [autocorrelation(chain) for chain in series.T] for key, series in values.items()}


def costs(repeat: int) -> dict[str, float]:
    """What a trajectory costs in full evaluations: medians of interleaved rounds."""
    torch.set_num_threads(1)
    model = mmace_sim.load_model("default", dtype=torch.float32)
    cells = Supercells(model, [iron(repeat)], replicas([1000.0], 0, 1, "iron"))
    sampler = HybridMonteCarlo(cells, n_steps=N_STEPS, n_adapt=1000)
    graph = cells.batch_graph((0,))
    sampler.advance(0, 1)
    found: dict[str, list[float]] = {"trajectory": [], "full evaluation": []}
    for k in range(ROUNDS):
        found["full evaluation"].append(seconds(lambda: evaluate(model, graph)))
        generators = cells.generators(k + 1)
        current = sampler._evaluate(cells.moments, cells.positions)
        found["trajectory"].append(seconds(lambda g=generators, c=current: sampler._trajectory(c, g)))
    median = {f"{key}, seconds": statistics.median(values) for key, values in found.items()}
    ratio = median["trajectory, seconds"] / median["full evaluation, seconds"]
    return median | {"steps": N_STEPS, "trajectory in full evaluations": ratio, "atoms": 2 * repeat**3}


def entry_of(folder: Path) -> dict:
    """What a run found, and its settings."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (entry,) = summary["structures"]
    settings = {key: value for key, value in summary["config"].items() if key not in ("paths", "output")}
    return {"settings": settings} | entry


def figure(entries: list[dict], key: str) -> None:
    """One quantity of all sizes against temperature."""
    canvas, axes = new_figure()
    points = [p for entry in entries for p in entry["points"]]
    for k, n in enumerate(sorted({p["n_spins"] for p in points})):
        rows = sorted((p for p in points if p["n_spins"] == n), key=lambda p: p["temperature"])
        x, y, e = ([p[name] for p in rows] for name in ("temperature", key, f"{key}_error"))
        bars = [0.0 if error is None else error for error in e]
        axes.errorbar(
            x, y, bars, color=COLORS[k], marker=MARKERS[k], markersize=3, linewidth=1, label=f"{n} atoms"
        )
    axes.set_xlabel("temperature (K)")
    axes.set_ylabel(PANELS[key])
    add_legend(axes)
    save_figure(canvas, FOLDER / f"curie_large_{key}")


def main(large: Path, fixed: Path, local: Path) -> None:
    """Read finished runs, measure what a trajectory costs, write the record and the figures."""
    entries = {folder.name: entry_of(folder) for folder in (large, fixed, local)}
    n_equilibration = entries[large.name]["settings"]["equilibration"]
    cost, tau = costs(max(entries[large.name]["settings"]["sizes"])), times(large, n_equilibration)
    temperatures = entries[large.name]["settings"]["temperatures"]
    rows = []
    for k, temperature in enumerate(temperatures):
        row = {"temperature": temperature}
        for key, values in tau.items():
            row[key] = values[k]
            row[f"{key}, full evaluations per independent sample"] = {
                name: value * cost["trajectory in full evaluations"] for name, value in values[k].items()
            }
        rows.append(row)
    write("curie_large", {"cost": cost, "autocorrelation": rows, "runs": entries})
    for key in PANELS:
        figure([entries[large.name], entries[fixed.name]], key)
    print(json.dumps({"cost": cost, "rows": rows}, indent=1))  # noqa: T201 a script


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

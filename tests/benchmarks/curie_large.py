"""T_C of 3456 atoms of bcc iron, and what an independent sample of them costs: docs/benchmarks/curie_large.json.

iron.extxyz is the cube of two atoms, a = 2.83 Å, both with 2.249 μB along z. The first run takes half an hour of a free
core, the second a few minutes:

    run="mmace-sim curie iron.extxyz -m mmace-fe-pbe --method direct --dtype float32 --seed 1 --threads 1"
    $run -o large --sizes 6,12 --n-steps 24 --temperatures 550,900,1000,1060,1120,1180,1320 \
        --sweeps 100 --equilibration 20
    $run -o local --sizes 3 --moves local --temperatures 1000,1200,1400 --sweeps 250 --equilibration 50
    python tests/benchmarks/curie_large.py large local

A run that was killed goes on with --resume; what an unfinished one has so far is read too, and the record says so. Costs
are processor times, measured in turn on the machine that reads the runs. A sample costs τ trajectories, τ = 1 + 2 Σ ρ(t):
the error of a mean of n is sqrt(τ variance / n).
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from record import FOLDER, MODEL, write
from test_curie import iron, seconds, value

import mmace_sim
from mmace_sim.model.derivatives import evaluate
from mmace_sim.plots import COLORS, MARKERS, add_legend, new_figure, save_figure
from mmace_sim.properties.curie.estimators import estimate
from mmace_sim.properties.curie.output import point_row
from mmace_sim.sampling.chains import Series, replicas
from mmace_sim.sampling.correlation import _analysed
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.statistics import points
from mmace_sim.sampling.surface import Supercells

ROUNDS = 5
PANELS = {
    "order": "order |Σ s e|/n",
    "binder": "Binder cumulant",
    "susceptibility": "susceptibility (1/eV per spin)",
}
SMALLER = "direct_fixed"
"""Run of 54 and 128 atoms in docs/benchmarks/curie_iron.json."""


def read(folder: Path) -> dict[str, Any]:
    """Points, estimates and τ of each chain of a run, from its samples as the command computes them."""
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    settings = settings.get("curie", settings)
    (path,) = folder.glob("*/samples-1.npz")
    with np.load(path) as file:
        values = {key.removeprefix("value_"): file[key] for key in file.files if key.startswith("value_")}
        acceptance = file["value_acceptance"][settings["equilibration"] :].mean(axis=0)
        steps = np.exp(file["state_log_step"]).reshape(acceptance.shape)
        done = int(file["done"])
    series = Series(values, settings["equilibration"])
    n_spins = [2 * size**3 for size in settings["sizes"]]
    chains = replicas(settings["temperatures"], settings["seed"], 1, "iron")
    rows = points(series, chains, n_spins)
    found = estimate(rows, seed=settings["seed"])
    return {
        "settings": {key: entry for key, entry in settings.items() if key not in ("paths", "output")},
        "sweeps_done": done - settings["equilibration"],
        "binder_crossings": [value(v) for v in found.crossings],
        "susceptibility_peaks": [value(v) for v in found.peaks],
        "power_law": value(found.power_law),
        "notes": found.notes,
        "acceptance": acceptance.tolist(),
        "steps": steps.tolist(),
        "points": [point_row(p) for row in rows for p in row],
        "autocorrelation": {
            key: [[autocorrelation(chain) for chain in size.T] for size in series.counted[key].swapaxes(0, 1)]
            for key in ("order", "energy")
        },
    }


def autocorrelation(series: np.ndarray) -> dict[str, float]:
    """τ of one chain and its standard error (Wolff, equation 42)."""
    found = _analysed(series[:, None])
    return {"mean": found.time, "error": found.time * float(np.sqrt((4 * found.window + 2) / len(series)))}


def costs(repeat: int, n_steps: int) -> dict[str, Any]:
    """What a trajectory costs in full evaluations: medians of interleaved rounds."""
    torch.set_num_threads(1)
    model = mmace_sim.load_model(MODEL, dtype=torch.float32)
    cells = Supercells(model, [iron(repeat)], replicas([1000.0], 0, 1, "iron"))
    sampler = HybridMonteCarlo(cells, n_steps=n_steps, n_adapt=1000)
    graph = cells.batch_graph((0,))
    sampler.advance(0, 1)
    current = sampler._evaluate(cells.moments, cells.positions)
    found: dict[str, list[float]] = {"full_evaluation": [], "trajectory": []}
    for k in range(ROUNDS):
        found["full_evaluation"].append(seconds(lambda: evaluate(model, graph)))
        generators = cells.generators(k + 1)
        found["trajectory"].append(seconds(lambda g=generators: sampler._trajectory(current, g)))
    median = {f"{key}_seconds": statistics.median(times) for key, times in found.items()}
    ratio = median["trajectory_seconds"] / median["full_evaluation_seconds"]
    return median | {"n_steps": n_steps, "n_atoms": graph.n_atoms, "trajectory_in_full_evaluations": ratio}


def independent_samples(run: dict[str, Any], cost: float) -> list[dict[str, float]]:
    """Full evaluations that one takes of the largest size at each temperature, by order and by energy."""
    rows = [{"temperature": t} for t in run["settings"]["temperatures"]]
    for key, sizes in run["autocorrelation"].items():
        for row, time in zip(rows, sizes[-1], strict=True):
            row |= {f"tau_{key}": time["mean"], f"tau_{key}_error": time["error"]}
            row |= {
                f"full_evaluations_{key}": cost * time["mean"],
                f"full_evaluations_{key}_error": cost * time["error"],
            }
    return rows


def figure(rows: list[dict[str, Any]], key: str) -> None:
    """One quantity of all sizes against temperature."""
    canvas, axes = new_figure()
    for k, n in enumerate(sorted({row["n_spins"] for row in rows})):
        some = sorted((row for row in rows if row["n_spins"] == n), key=lambda row: row["temperature"])
        bars = [row[f"{key}_error"] or 0.0 for row in some]
        x, y = ([row[name] for row in some] for name in ("temperature", key))
        axes.errorbar(
            x, y, bars, color=COLORS[k], marker=MARKERS[k], markersize=3, linewidth=1, label=f"{n} atoms"
        )
    axes.set_xlabel("temperature (K)")
    axes.set_ylabel(PANELS[key])
    add_legend(axes)
    save_figure(canvas, FOLDER / f"curie_large_{key}")


def main(large: Path, local: Path) -> None:
    """Read runs, measure what a trajectory costs, write the record and the figures."""
    runs = {"large": read(large), "local": read(local)}
    settings = runs["large"]["settings"]
    cost = costs(settings["sizes"][-1], settings["n_steps"])
    rows = independent_samples(runs["large"], cost["trajectory_in_full_evaluations"])
    smaller = json.loads((FOLDER / "curie_iron.json").read_text(encoding="utf-8"))[SMALLER]["points"]
    write("curie_large", {"cost": cost, "independent_samples": rows, "runs": runs})
    for key in PANELS:
        figure(smaller + runs["large"]["points"], key)
    show(rows, cost, runs)


def show(rows: list[dict[str, Any]], cost: dict[str, Any], runs: dict[str, Any]) -> None:
    """Print what docs/curie.md has."""
    lines = [f"a trajectory costs {cost['trajectory_in_full_evaluations']:.2f} full evaluations"]
    for row in rows:
        names = [f"{name}_{key}" for key in ("order", "energy") for name in ("tau", "full_evaluations")]
        parts = [f"{name} {row[name]:.1f} ± {row[name + '_error']:.1f}" for name in names]
        lines.append("  ".join([f"{row['temperature']:6.0f} K", *parts]))
    for name, run in runs.items():
        lines.append(f"{name}: {run['sweeps_done']} of {run['settings']['sweeps']} sweeps")
        lines += [
            f"  {key}: {run[key]}"
            for key in ("binder_crossings", "susceptibility_peaks", "power_law", "notes")
        ]
        lines += [point_line(p) for p in run["points"]]
    print("\n".join(lines))  # noqa: T201 a script


def point_line(p: dict[str, Any]) -> str:
    """One size at one temperature."""
    bars = "  ".join(f"{k} {p[k]:.4f} ± {p[k + '_error'] or float('nan'):.4f}" for k in PANELS)
    return (
        f"  {p['n_spins']:5d} {p['temperature']:6.0f} K  {bars}  τ {p['autocorrelation']:.1f}  {p['status']}"
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

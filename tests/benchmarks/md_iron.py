"""Iron alone and in a bath with the embedded model of iron: drift, lengths and temperatures (docs/md.md).

iron.extxyz: bulk("Fe", cubic=True, a=2.83) * 2, moments of 2.25 μB tilted by some 9°.

$ mmace-sim md iron.extxyz -m mmace-fe-pbe -o RUNS/nve --ensemble nve --spins llg -T 600 --steps 1000 --every 5
$ mmace-sim md iron.extxyz -m mmace-fe-pbe -o RUNS/nvt --spins llg -T 300 --damping 0.2 --steps 800 --every 4 --seed 1
$ python tests/benchmarks/md_iron.py RUNS       # writes docs/benchmarks/md_iron.*
"""

import csv
import json
import sys
from pathlib import Path

import ase.io
import numpy as np

from mmace_sim.plots import COLORS, REFERENCE, new_figure, save_figure
from mmace_sim.units import BOLTZMANN_EV_PER_K

DOCS = Path(__file__).parents[2] / "docs"
BATH = 300.0
N_BLOCKS = 5


def columns(folder):
    """Columns of thermo.csv."""
    with (folder / "thermo.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def spin_temperature(data, frames):
    """Ratio of means, in K."""
    return data["spin_torque"][frames].sum() / data["spin_curvature"][frames].sum() / BOLTZMANN_EV_PER_K


def with_error(value, frames):
    """A value over all frames, and its standard error from blocks."""
    parts = [value(block) for block in np.array_split(frames, N_BLOCKS)]
    return [round(float(value(frames)), 3), round(float(np.std(parts, ddof=1) / np.sqrt(N_BLOCKS)), 3)]


def alone(folder):
    """Numbers of the run at constant energy."""
    data, first = columns(folder), ase.io.read(folder / "trajectory.extxyz", index=0)
    n_atoms, times = len(first), data["time"] / 1000.0
    energy = 1000.0 * (data["energy_total"] - data["energy_total"][0]) / n_atoms
    late = np.arange(len(times))[len(times) // 10 :]
    slope = np.polyfit(times[late], energy[late], 1)[0]
    with np.load(folder / "checkpoint.npz", allow_pickle=False) as arrays:
        lengths = np.linalg.norm(arrays["magnetic_moments"], axis=1)
    start = np.linalg.norm(first.get_initial_magnetic_moments(), axis=1)
    half = late[len(late) // 2 :]
    return data, {
        "picoseconds": times[-1], "drift_mev_per_atom_ps": round(float(slope), 5),
        "noise_mev_per_atom": round(float(np.std(energy[late] - slope * times[late])), 5),
        "largest_change_of_a_length": float(np.abs(lengths - start).max()),
        "largest_change_of_mean_length": float(np.ptp(data["mean_magmom"])),
        "change_of_total_moment_per_atom": float(np.ptp(data["total_magmom"])),
        "atoms": with_error(lambda f: data["temperature"][f].mean(), half),
        "moments": with_error(lambda f: spin_temperature(data, f), half),
        "evaluations_per_step": round(data["n_evaluations"][-1] / data["step"][-1], 2),
    }  # fmt: skip


def in_a_bath(folder):
    """Numbers of the run at 300 K, without its first quarter."""
    data = columns(folder)
    late = np.arange(len(data["time"]))[len(data["time"]) // 4 :]
    return data, {
        "picoseconds": data["time"][-1] / 1000.0, "picoseconds_left_out": data["time"][late[0]] / 1000.0,
        "atoms": with_error(lambda f: data["temperature"][f].mean(), late),
        "moments": with_error(lambda f: spin_temperature(data, f), late),
        "total_moment_per_atom": with_error(lambda f: data["total_magmom"][f].mean(), late),
    }  # fmt: skip


def figure(nve, nvt, n_atoms=16):
    """Energy of the one, temperatures of the other."""
    drawing, axes = new_figure("page", aspect=0.36)
    axes.remove()
    left, right = drawing.subplots(1, 2)
    energy = 1000.0 * (nve["energy_total"] - nve["energy_total"][0]) / n_atoms
    left.plot(nve["time"] / 1000.0, energy, color=COLORS[0], linewidth=0.8)
    left.set_ylabel("total energy − first (meV/atom)", fontsize=8)
    blocks = np.array_split(np.arange(len(nvt["time"])), 16)
    middle = [nvt["time"][b].mean() / 1000.0 for b in blocks]
    right.axhline(BATH, color=REFERENCE, linewidth=0.8, label="bath")
    right.plot(middle, [nvt["temperature"][b].mean() for b in blocks], "o-", color=COLORS[0], markersize=3,
               linewidth=0.8, label="atoms")  # fmt: skip
    right.plot(middle, [spin_temperature(nvt, b) for b in blocks], "s--", color=COLORS[1], markersize=3,
               linewidth=0.8, label="moments")  # fmt: skip
    right.set_ylabel("temperature (K)", fontsize=8)
    right.set_ylim(bottom=0.0)
    right.legend(fontsize=6, frameon=False)
    for panel in (left, right):
        panel.set_xlabel("time (ps)", fontsize=8)
        panel.tick_params(labelsize=7)
    return drawing


def main(runs):
    """Compute, write, draw."""
    nve, alone_ = alone(next((runs / "nve").glob("*/")))
    nvt, bath = in_a_bath(next((runs / "nvt").glob("*/")))
    stem = DOCS / "benchmarks" / "md_iron"
    content = {"atoms": 16, "units": "K, ps, μB unless the name says otherwise; errors from five blocks"}
    text = json.dumps(content | {"alone": alone_, "bath": bath}, indent=1, ensure_ascii=False)
    stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    save_figure(figure(nve, nvt), stem)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

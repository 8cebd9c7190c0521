"""Spin-orbit coupling in two real sets: what two seeds of a model say, and what the labels resolve (docs/anisotropy.md).

Folders that this reads, for SEED 0 and 1, with held.extxyz the joined valid.extxyz and test.extxyz of a set and fm.extxyz
the ideal ferromagnetic cell of FeGe (8 atoms, 0.8427 μB on Fe):

$ mmace-sim anisotropy fm.extxyz -m docs/accuracy/models/fege_b20_nc_fixedlattice-ours-SEED.safetensors \
      --magmoms fixed -o RUNS/fege_aniso_SEED
$ mmace-sim anisotropy --map held.extxyz --rotations 8 -m .../fege_b20_nc_fixedlattice-ours-SEED.safetensors \
      -o RUNS/fege_map_SEED
$ mmace-sim anisotropy --map held.extxyz --rotations 8 -m .../nio_deltaspin-ours-SEED.safetensors -o RUNS/nio_map_SEED
$ python tests/benchmarks/anisotropy_sets.py RUNS ../shared/data       # writes docs/benchmarks/anisotropy_sets.*
"""

import csv
import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase.neighborlist import neighbor_list

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.torchsim import MagneticMaceModel, initialize_state

DOCS = Path(__file__).parents[2] / "docs"
MODELS = DOCS / "accuracy" / "models"
SETS = {"fege": ("fege_b20_nc_fixedlattice", "FeGe"), "nio": ("nio_deltaspin", "NiO")}
SEEDS = (0, 1)
MICRO = 1e6


def rows(folder):
    """Rows of a summary by name of the structure."""
    with (folder / "summary.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def frames(data, name, parts):
    """Structures with the moments of their labels."""
    images = [atoms for part in parts for atoms in ase.io.read(data / name / f"{part}.extxyz", ":")]
    for atoms in images:
        set_magmoms(atoms, atoms.arrays["REF_magmom"])
    return images


def spin_orbit_energies(name, images, seed):
    """Energy without E_soc, and E_soc, in eV/atom."""
    model = mmace_sim.load_model(MODELS / f"{name}-ours-{seed}.safetensors", dtype=torch.float64)
    host, energies = MagneticMaceModel(model, compute_forces=False, compute_stress=False), []
    for _ in range(2):
        batches = [initialize_state(images[k : k + 8]) for k in range(0, len(images), 8)]
        energies.append(torch.cat([host(state)["energy"].detach() for state in batches]).numpy())
        for weights in model.spin_orbit_term.parameters():
            weights.data.zero_()
    n_atoms = np.array([len(atoms) for atoms in images])
    return energies[1] / n_atoms, (energies[0] - energies[1]) / n_atoms


def compare_with_labels(name, images):
    """Whether E_soc brings a model nearer to labels that it has not seen; in μeV/atom, up to a constant."""
    labels = np.array([atoms.info["REF_energy"] / len(atoms) for atoms in images])
    found, terms = {}, []
    for seed in SEEDS:
        rest, soc = spin_orbit_energies(name, images, seed)
        left, x = labels - rest - (labels - rest).mean(), soc - soc.mean()
        factor = left @ x / (x @ x)
        spread = np.sqrt(((left - factor * x) ** 2).sum() / (len(x) - 2) / (x @ x))
        found[f"seed {seed}"] = {
            "error_with_e_soc": MICRO * np.std(left - x), "error_without_e_soc": MICRO * np.std(left),
            "spread_of_e_soc": MICRO * np.std(soc), "factor_that_fits_labels_best": [factor, spread],
        }  # fmt: skip
        terms.append(soc)
    return found | {"correlation_of_e_soc": float(np.corrcoef(terms)[0, 1]), "n_structures": len(images)}


def maps(runs, key):
    """Spreads of all structures for both seeds, in μeV/atom."""
    tables = [rows(runs / f"{key}_map_{seed}") for seed in SEEDS]
    values = np.array([[float(table[name]["spread"]) for name in tables[0]] for table in tables])
    ranks = values.argsort(axis=1).argsort(axis=1)
    return values, {
        "median_spread": np.median(values, axis=1).tolist(), "largest_spread": values.max(axis=1).tolist(),
        "median_ratio_of_seeds": float(np.median(values[1] / values[0])),
        "rank_correlation_of_seeds": float(np.corrcoef(ranks)[0, 1]), "n_structures": values.shape[1],
    }  # fmt: skip


def label_invariants(images):
    """Σ over Fe of what an energy of moments may contain, for each structure: by name, (n_structures, n_terms)."""
    ideal = images[0]
    iron = np.flatnonzero(ideal.numbers == 26)
    m = np.array([atoms.arrays["REF_magmom"][iron] for atoms in images])
    lengths = np.linalg.norm(m, axis=2)
    first, second, distances, vectors = neighbor_list("ijdD", ideal[iron], 6.4)
    shells = np.unique(distances.round(2))
    dots = (m[:, first] * m[:, second]).sum(axis=2)
    chiral = (np.cross(m[:, first], m[:, second]) * vectors / distances[:, None]).sum(axis=2)
    sites, _, bonds = neighbor_list("ijD", ideal, 2.7)
    threefold = []
    for site in iron:
        around = bonds[sites == site]
        values, axes = np.linalg.eigh(around.T @ around)
        threefold.append(axes[:, np.abs(values - np.median(values)).argmax()])

    def over_shells(values, n):
        return [0.5 * values[:, distances.round(2) == shell].sum(axis=1) for shell in shells[:n]]

    isotropic = [np.ones(len(m)), (lengths**2).sum(axis=1), (lengths**4).sum(axis=1)]
    isotropic += over_shells(dots, 6) + over_shells(dots**2, 3)
    return np.array(isotropic).T, {
        "Dzyaloshinskii-Moriya along three bonds": np.array(over_shells(chiral, 3)).T,
        "threefold axis of each Fe": ((m * np.array(threefold)).sum(axis=2) ** 2).sum(axis=1)[:, None],
        "cubic Σ(x⁴+y⁴+z⁴)/m⁴": ((m / lengths[:, :, None]) ** 4).sum(axis=(1, 2))[:, None],
    }


def fit(columns, energies):
    """Least squares: residual corrected for the number of terms, solution and its errors."""
    scale = np.linalg.norm(columns, axis=0)
    solution, _, rank, _ = np.linalg.lstsq(columns / scale, energies, rcond=1e-10)
    left = energies - columns / scale @ solution
    variance = left @ left / (len(energies) - rank)
    errors = np.sqrt(variance * np.diag(np.linalg.pinv((columns / scale).T @ (columns / scale))))
    return np.sqrt(variance), solution / scale, errors / scale


def resolution(images):
    """What the labels of FeGe say about spin-orbit coupling without any network."""
    energies, n_atoms = np.array([atoms.info["REF_energy"] for atoms in images]), len(images[0])
    isotropic, terms = label_invariants(images)
    found = {"isotropic terms alone": {"residual": MICRO * fit(isotropic, energies)[0] / n_atoms}}
    for name, columns in terms.items():
        residual, solution, errors = fit(np.hstack([isotropic, columns]), energies)
        n = columns.shape[1]
        found[name] = {
            "residual": MICRO * residual / n_atoms,
            "constants_mev": (1000 * solution[-n:]).tolist(), "errors_mev": (1000 * errors[-n:]).tolist(),
        }  # fmt: skip
    return found


def figure(spreads):
    """Spread of each structure by one seed against that by the other."""
    drawing, axes = new_figure()
    for (key, values), color, marker in zip(spreads.items(), COLORS, MARKERS, strict=False):
        axes.plot(*values, marker, color=color, markersize=3.5, markerfacecolor="none", label=SETS[key][1])
    ends = np.array([min(v.min() for v in spreads.values()), max(v.max() for v in spreads.values())])
    ends = ends * [0.7, 1.4]
    axes.plot(ends, ends, color=REFERENCE, linewidth=0.8, label="equal")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("spread of E(R m), seed 0 (μeV/atom)")
    axes.set_ylabel("spread of E(R m), seed 1 (μeV/atom)")
    add_legend(axes)
    return drawing


def main(runs, data):
    """Compute, write, draw."""
    spreads, content = {}, {"unit": "μeV/atom unless the name says otherwise"}
    for key, (name, _) in SETS.items():
        spreads[key], content[f"{key} map"] = maps(runs, key)
        content[f"{key} against labels"] = compare_with_labels(name, frames(data, name, ("valid", "test")))
    anisotropy = [next(iter(rows(runs / f"fege_aniso_{seed}").values())) for seed in SEEDS]
    content["fege ferromagnet"] = [
        {k: float(row[k]) for k in ("K1", "mae")} | {"easy": row["easy"]} for row in anisotropy
    ]
    images = frames(data, SETS["fege"][0], ("train", "valid", "test"))
    content["fege labels"] = {"n_structures": len(images)} | resolution(images)
    stem = DOCS / "benchmarks" / "anisotropy_sets"
    text = json.dumps(content, indent=1, ensure_ascii=False)
    stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    save_figure(figure(spreads), stem)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""The applications of arXiv 2604.08143 with mmace-3d-pbe: python docs/models/applications_3d.py [MODEL].

FeNi compounds, random moments of Mn3Pt, the way from bcc to fcc of iron and FeNi, beside our own DFT. Writes
docs/models/applications.json, figures, and the tables of docs/models/applications.md; one minute on one core.
"""

import json
import re
import sys

import numpy as np
from ase import Atoms
from ase.io import read
from card_3d import shears, table
from measure_3d import DATA, HERE, free, shear_moduli, start, with_moments_at_rest

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.plots import COLORS, MARKERS, new_figure, save_figure
from mmace_sim.properties.elastic import ElasticTensorCalculation
from mmace_sim.properties.moments import MomentSearch

MOMENT = {"Fe": 2.6, "Ni": 0.7, "Mn": 3.0, "Pt": 0.3}
"""Lengths to start from, in μB."""
SITES = {
    "B2": [[0, 0, 0], [0.5, 0.5, 0.5]],
    "L10": [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    "L12": [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
}
PHASES = {"FeNi B2": "FeNi", "FeNi L10": "Fe2Ni2", "Ni3Fe L12": "FeNi3", "Fe3Ni L12": "NiFe3"}
STARTS, ANGLE = 30, 15.0
"""Random starts of Mn3Pt; how far an angle may be from 120 degrees."""
CONSTANTS = ((1, 1), (1, 2), (1, 3), (3, 3), (4, 4), (6, 6))
MN3PT = 3.83
"""Lattice constant of experiment, in Å."""
TRIANGLE = ((1, 1, -2), (1, -2, 1), (-2, 1, 1))
RATIOS = np.linspace(0.86, 1.72, 44)
PATHS = {"Fe": (11.4, ("fm", "afm")), "FeNi": (11.3475, ("fm",))}
"""Volumes (Å³ per atom) and states of the paths, as in tools/propose_mag3d.py."""
NEAR = 0.01
"""Cells whose volume (Å³ per atom) is so near are on the path."""


def crystal(symbols: str, structure: str, volume: float) -> Atoms:
    """A ferromagnet of so many Å³ per atom in its cubic cell; L1_0 starts as cubic, too."""
    a = (len(SITES[structure]) * volume) ** (1 / 3)
    atoms = Atoms(symbols, cell=[a] * 3, pbc=True, scaled_positions=SITES[structure])
    set_magmoms(atoms, [[0, 0, MOMENT[s]] for s in atoms.get_chemical_symbols()])
    return atoms


def iron_nickel(model: mmace_sim.MagneticMACE) -> dict:
    """Lattice, moments and elastic constants (GPa) of each compound, cell and moments relaxed."""
    starts = [crystal(symbols, name.split()[1], 11.3) for name, symbols in PHASES.items()]
    found = {}
    for name, result in zip(PHASES, ElasticTensorCalculation(model).run(starts), strict=True):
        row: dict = {"status": str(result.status), "message": result.message}
        if result.reference is not None:
            symbols = np.array(result.reference.get_chemical_symbols())
            a, _, c = result.reference.cell.lengths()
            row |= {"a": a, "c": c}
            row["volume"] = result.reference.get_volume() / len(symbols)
            moments = get_magmoms(result.reference)[:, 2]
            row["moments"] = {
                symbol: float(moments[symbols == symbol].mean()) for symbol in sorted(set(symbols))
            }
        for constants in result.constants.values():
            row["constants"] = {f"C{i}{j}": float(constants.c_gpa[i - 1, j - 1]) for i, j in CONSTANTS}
        found[name] = row
    return found


def sheared(model: mmace_sim.MagneticMACE, data: list[Atoms]) -> dict:
    """Shear moduli of the compounds from strained cells: of DFT, and of the model in the same cells."""
    strained = [
        frame for frame in data if re.match(r"strain_\w*(FeNi|Ni3Fe|Fe3Ni)", frame.info["config_type"])
    ]
    return shear_moduli(strained, with_moments_at_rest([start(frame) for frame in strained], model))


def random_moments(model: mmace_sim.MagneticMACE) -> dict:
    """Minima of Mn3Pt's moments at fixed atoms from random starts, and how far each is from 120 degrees."""
    atoms = crystal("PtMn3", "L12", MN3PT**3 / 4)
    set_magmoms(atoms, np.vstack([[0.0, 0.0, 0.0], MOMENT["Mn"] * np.array(TRIANGLE) / 6**0.5]))
    (result,) = MomentSearch(model, starts=STARTS).run([atoms])
    minima = []
    for minimum in result.minima:
        moments = get_magmoms(minimum.atoms)
        units = moments[1:] / np.linalg.norm(moments[1:], axis=1)[:, None]
        angles = np.degrees(np.arccos(np.clip((units @ units.T)[np.triu_indices(3, 1)], -1, 1)))
        minima.append(
            {
                "energy_above_lowest": minimum.energy_above_lowest,
                "starts": minimum.n_starts,
                "angles": sorted(angles.tolist()),
                "lengths": np.linalg.norm(moments, axis=1).tolist(),
            }
        )
    lowest = min(start.energy for start in result.starts)
    return {
        "starts": STARTS,
        "converged": sum(start.minimum is not None for start in result.starts),
        "triangular": sum(m["starts"] for m in minima if max(abs(a - 120.0) for a in m["angles"]) < ANGLE),
        "steps": float(np.mean([start.steps for start in result.starts])),
        "minima": minima,
        "descents": [
            [1000 * (energy / len(atoms) - lowest) for energy in start.descent.energies]
            for start in result.starts
        ],
    }


def bcc_to_fcc(model: mmace_sim.MagneticMACE, data: list[Atoms]) -> dict:
    """Energy along c/a at one volume, moments relaxed, above the ferromagnet at c/a = 1, in meV/atom; DFT beside it."""
    found: dict = {}
    for symbols, (volume, states) in PATHS.items():
        for state in states:
            images = []
            for ratio in RATIOS:
                atoms = crystal(symbols if len(symbols) > 2 else symbols * 2, "B2", volume)
                edge = (2 * volume / ratio) ** (1 / 3)
                atoms.set_cell([edge, edge, ratio * edge], scale_atoms=True)
                set_magmoms(atoms, get_magmoms(atoms) * [[1.0], [-1.0 if state == "afm" else 1.0]])
                images.append(atoms)
            results = with_moments_at_rest(images, model)
            points = [frame for frame in data if on_path(frame, symbols, volume, state)]
            found[f"{symbols} {state.upper()}"] = {
                "c_over_a": RATIOS.tolist(),
                "model": [result.energy / 2 for result in results],
                "moments": [np.abs(get_magmoms(result.atoms)[:, 2]).tolist() for result in results],
                "dft_c_over_a": [ratio_of(frame) for frame in points],
                "dft": [frame.info["REF_energy"] / 2 for frame in points],
            }
        own = [found[f"{symbols} {state.upper()}"] for state in states]
        for side, ratios in (("model", "c_over_a"), ("dft", "dft_c_over_a")):
            zero = own[0][side][int(np.argmin(np.abs(np.subtract(own[0][ratios], 1.0))))]
            for row in own:
                row[side] = [1000 * (energy - zero) for energy in row[side]]
    return found


def ratio_of(frame: Atoms) -> float:
    """c/a of a tetragonal cell."""
    lengths = frame.cell.lengths()
    return float(lengths[2] / lengths[0])


def on_path(frame: Atoms, symbols: str, volume: float, state: str) -> bool:
    """Whether a calculation is a cell of two atoms on the path of a state."""
    return (
        len(frame) == 2
        and set(frame.get_chemical_symbols()) == set(Atoms(symbols).get_chemical_symbols())
        and abs(frame.get_volume() / 2 - volume) < NEAR
        and bool(re.match(rf"x_\w+_path_[\d.]+_{state}|\w+_fct_[\d.]+_{state}", frame.info["config_id"]))
    )


def figures(report: dict) -> None:
    """The descent of the moments of Mn3Pt, and the paths."""
    figure, axes = new_figure()
    for descent in report["Mn3Pt"]["descents"]:
        axes.plot(range(len(descent)), np.maximum(descent, 1e-3), color=COLORS[0], alpha=0.5, lw=0.8)
    axes.set(xlabel="step", ylabel="energy above the lowest (meV/atom)", yscale="log")
    save_figure(figure, HERE / "applications-mn3pt")
    for symbols in PATHS:
        figure, axes = new_figure()
        own = {name: row for name, row in report["paths"].items() if name.split()[0] == symbols}
        for k, (name, row) in enumerate(own.items()):
            axes.plot(row["c_over_a"], row["model"], color=COLORS[k], label=name.split()[1])
            axes.plot(
                row["dft_c_over_a"], row["dft"], MARKERS[k], color=COLORS[k], label=f"{name.split()[1]}, DFT"
            )
        axes.set(xlabel="c/a", ylabel="energy (meV/atom)")
        axes.legend()
        save_figure(figure, HERE / f"applications-path-{symbols.lower()}")


def iron_nickel_table(report: dict) -> str:
    """Compounds of iron and nickel: cell, moments and elastic constants."""
    rows = []
    for name, row in report["FeNi"].items():
        constants = row["constants"]
        rows.append(
            [
                name,
                f"{row['a']:.3f}",
                f"{row['c'] / row['a']:.3f}",
                ", ".join(f"{symbol} {moment:.2f}" for symbol, moment in row["moments"].items()),
                *(f"{constants[f'C{i}{j}']:.0f}".replace("-", "−") for i, j in CONSTANTS),
            ]
        )
    return table(["", "a (Å)", "c/a", "moments (μB)", *(f"C{i}{j} (GPa)" for i, j in CONSTANTS)], rows)


def minima_table(report: dict) -> str:
    """Minima of the moments of Mn3Pt."""
    rows = [
        [
            f"{1000 * minimum['energy_above_lowest']:.1f}",
            str(minimum["starts"]),
            ", ".join(f"{angle:.0f}°" for angle in minimum["angles"]),
            ", ".join(f"{length:.2f}" for length in minimum["lengths"]),
        ]
        for minimum in report["Mn3Pt"]["minima"]
    ]
    return table(["above the lowest (meV/atom)", "starts", "angles between Mn", "lengths: Pt, Mn (μB)"], rows)


def path_table(report: dict) -> str:
    """Differences between model and DFT along the paths."""
    rows = []
    for name, row in report["paths"].items():
        model = np.interp(row["dft_c_over_a"], row["c_over_a"], row["model"])
        differences = np.abs(model - row["dft"])
        rows.append([name, str(len(differences)), f"{differences.mean():.0f}", f"{differences.max():.0f}"])
    return table(["path", "calculations", "mean difference (meV/atom)", "largest"], rows)


def with_tables(text: str, report: dict) -> str:
    """The page with its tables anew."""
    for mark, part in (
        ("FeNi", iron_nickel_table),
        ("shears", shears),
        ("Mn3Pt", minima_table),
        ("paths", path_table),
    ):
        begin, end = f"<!-- table: {mark} -->", "<!-- end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{part(report)}\n{end}{rest.split(end, 1)[1]}"
    return text


def main() -> None:
    """Measure, write, and draw."""
    model = mmace_sim.load_model(sys.argv[1] if len(sys.argv) > 1 else "mmace-3d-pbe")
    data = free([frame for path in sorted(DATA.glob("*.extxyz.xz")) for frame in read(path, ":")])
    report = {
        "model": model.metadata.get("name"),
        "FeNi": iron_nickel(model),
        "shear_moduli": sheared(model, data),
        "Mn3Pt": random_moments(model),
        "paths": bcc_to_fcc(model, data),
    }
    figures(report)
    (HERE / "applications.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = HERE / "applications.md"
    page.write_text(with_tables(page.read_text(encoding="utf-8"), report), encoding="utf-8")


if __name__ == "__main__":
    main()

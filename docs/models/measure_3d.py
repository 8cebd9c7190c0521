"""Measure mmace-3d-pbe against the DFT of its own data: python docs/models/measure_3d.py [MODEL].

Writes docs/models/NAME.json: for each crystal and magnetic state the volume, moments, bulk modulus and energy of
DFT and model by the same fit through the same volumes; formation energies; and whether magnetic states of one cell
come in the same order. Moments of the model are relaxed from those of the DFT, atoms and cells stay.
"""

import json
import re
import sys
from collections import defaultdict
from itertools import combinations, compress
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import read
from iron import TIGHT, exchange

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.io.frames import read_frames
from mmace_sim.training.evaluation.evaluate import evaluate_frames
from mmace_sim.units import EV_PER_A3_IN_GPA

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "examples" / "data" / "mag3d-gpaw"
NAME = "mmace-3d-pbe"
GROUND = {
    "Fe": "eos_Fe_bcc_fm",
    "Co": "eos_Co_hcp_fm",
    "Ni": "eos_Ni_fcc_fm",
    "Al": "eos_Al_fcc_nm",
    "Mn": "eos_Mn_fcc_afm",
    "Cr": "eos_Cr_bcc_afm",
    "Pt": "eos_Pt_fcc_nm",
}
"""Ground states of the elements (of Mn: the lowest of the simple ones), the zero of formation energies."""
MOLECULES = ("N", "O")
"""Elements whose zero are isolated atoms."""
FAMILIES = {
    "elements": r"eos_",
    "lengths of moments": r"mscan_|\w+_len$",
    "nitrides, oxides": r"\w+_B1_",
    "ordered compounds": r"(?!eos_)\w+_(B2|L10|L12|D03)_|L21_",
    "bcc to fcc": r"\w+_bain_",
    "rattled": r"rat",
    "strained, displaced": r"strain_|frozen_|layers_",
    "collinear orders": r"order_",
    "vacancies, short distances": r"vac\d_|short",
    "torn crystals": r"expanded",
}
"""What the data have, by the name of the family."""
CURVE = re.compile(r"(eos_|[A-Z]\w*_(B2|L10|L12|B1)_)\w*(fm|afm|nm)$")
"""Families that are ideal cells at several volumes."""
STRAIN, DISPLACEMENT = 0.03, 0.1
"""Of the strained and displaced cells, as in tools/propose_mag3d.py; displacements in Å."""
MAGNETS = (
    ("Fe bcc", ("bcc", 2.84), 2.2),
    ("Co hcp", ("hcp", 2.50, None, 4.05), 1.7),
    ("Co fcc", ("fcc", 3.53), 1.7),
    ("Ni fcc", ("fcc", 3.53), 0.65),
)
"""Name, crystal to start from and moment (μB) of the elements that are ferromagnets."""
SIDES = ("dft", "model")
FIRST = {"Fe", "Co", "Ni", "Al"}
"""Elements that most calculations are of."""
BAD = 25.0
"""Errors of energies that are named, in meV/atom."""
GAP = 0.010
"""Differences of energies of states that count, in eV/atom."""


def states(frames: list[Atoms]) -> dict[str, list[Atoms]]:
    """Curves of at least three volumes, by name, in the order of the volumes, of frames whose moments are free.

    L1_0 in a cell of four atoms has moments that alternate within the planes of an element. Of cells of
    several shapes (hcp) those that are most count.
    """
    found: dict[str, dict[float, list[Atoms]]] = defaultdict(lambda: defaultdict(list))
    for frame in frames:
        name = frame.info["config_type"]
        if CURVE.match(name):
            name = name.replace("_L10_", "_L10_planes_") if len(frame) == 4 else name
            lengths = frame.cell.lengths()
            found[name][round(lengths[2] / lengths[0], 2)].append(frame)
    curves = {name: max(shapes.values(), key=len) for name, shapes in sorted(found.items())}
    return {
        name: sorted(curve, key=lambda a: a.get_volume()) for name, curve in curves.items() if len(curve) >= 3
    }


def moments_of(atoms: Atoms) -> np.ndarray:
    """Moments of the DFT along z, (n,) in μB."""
    return atoms.arrays["REF_magmom"].reshape(len(atoms), -1)[:, -1]


def start(frame: Atoms) -> Atoms:
    """The cell with the moments of the DFT."""
    atoms = Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=True)
    set_magmoms(atoms, np.outer(moments_of(frame), [0, 0, 1]))
    return atoms


def free(frames: list[Atoms]) -> list[Atoms]:
    """Calculations whose moments were not held."""
    return [frame for frame in frames if frame.info["constrained"] in ("F", False)]


def with_moments_at_rest(images: list[Atoms], model: mmace_sim.MagneticMACE) -> list:
    """Results at moments relaxed along their axes; atoms and cells stay."""
    found = mmace_sim.relax(
        images,
        model,
        relax_cell=False,
        relax_positions=False,
        collinear=True,
        magforce_tol=1e-4,
        max_steps=1000,
    )
    return list(found)


def minimum(volumes: np.ndarray, energies: np.ndarray) -> dict[str, float] | None:
    """Of a parabola in V^(-2/3) through the three points about the lowest one; None if it lies at the edge."""
    low = int(np.argmin(energies))
    if not 0 < low < len(volumes) - 1:
        return None
    near = slice(low - 1, low + 2)
    x = volumes[near] ** (-2 / 3)
    poly = np.polynomial.Polynomial.fit(x, energies[near], 2)
    x0 = poly.deriv().roots()[0].real
    volume = x0**-1.5
    return {
        "volume": float(volume),
        "energy": float(poly(x0)),
        "bulk_modulus": float(4 / 9 * x0**2 * poly.deriv(2)(x0) / volume * EV_PER_A3_IN_GPA),
    }


def compare(name: str, curve: list[Atoms], results: list) -> dict:
    """One state by DFT and by the model, at the same volumes."""
    n = len(curve[0])
    volumes = np.array([a.get_volume() / n for a in curve])
    sides = {
        "dft": (np.array([a.info["REF_energy"] / n for a in curve]), [moments_of(a) for a in curve]),
        "model": (np.array([r.energy / n for r in results]), [get_magmoms(r.atoms)[:, 2] for r in results]),
    }
    row: dict = {"name": name, "symbols": curve[0].get_chemical_formula(), "volumes": volumes.tolist()}
    for side, (energies, moments) in sides.items():
        row[side] = {
            "energies": energies.tolist(),
            "moments": np.round(moments, 4).tolist(),
            "minimum": minimum(volumes, energies),
        }
    row["status"] = [str(r.status) for r in results]
    return row


def ground(row: dict) -> dict[str, float]:
    """Energies of an element by DFT and by the model: at their minima, or else in the cell that is lowest by DFT."""
    if all(row[side]["minimum"] for side in SIDES):
        return {side: row[side]["minimum"]["energy"] for side in SIDES}
    low = int(np.argmin(row["dft"]["energies"]))
    return {side: row[side]["energies"][low] for side in SIDES}


def formation_energies(
    rows: dict[str, dict], frames: list[Atoms], results: list
) -> dict[str, dict[str, float | str]]:
    """Of every ordered compound in the lowest state and cell of the DFT, in eV/atom, by DFT and by the model."""
    atoms = {a.symbols[0]: a.info["REF_energy"] for a in read(DATA / "atoms.extxyz", ":")}
    molecules = {symbol: atoms[symbol] for symbol in MOLECULES}
    zero = {side: molecules | {s: ground(rows[name])[side] for s, name in GROUND.items()} for side in SIDES}
    lowest: dict[str, tuple[float, int]] = {}
    for k, frame in enumerate(frames):
        name = frame.info["config_type"]
        if re.match(rf"{FAMILIES['ordered compounds']}|{FAMILIES['nitrides, oxides']}", name):
            phase = name.rsplit("_", 1)[0]
            lowest[phase] = min(lowest.get(phase, (np.inf, k)), (frame.info["REF_energy"] / len(frame), k))
    found: dict[str, dict[str, float | str]] = {}
    for phase, (energy, k) in sorted(lowest.items()):
        symbols = frames[k].get_chemical_symbols()
        energies = {"dft": energy, "model": results[k].energy / len(symbols)}
        found[phase] = {"cell": frames[k].info["config_id"]} | {
            side: value - sum(zero[side][s] for s in symbols) / len(symbols)
            for side, value in energies.items()
        }
    return found


def order_of_states(frames: list[Atoms], results: list) -> dict:
    """Pairs of magnetic states of one cell that differ by more than the gap: how many have the right sign."""
    cells: dict[str, list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        key = np.round(np.c_[frame.cell.array.ravel()[None], frame.positions.ravel()[None]], 3)
        cells[f"{frame.get_chemical_symbols()}{key.tolist()}"].append(k)
    pairs, wrong = 0, []
    for members in cells.values():
        for i, j in combinations(members, 2):
            gap = (frames[i].info["REF_energy"] - frames[j].info["REF_energy"]) / len(frames[i])
            if abs(gap) > GAP:
                pairs += 1
                ours = (results[i].energy - results[j].energy) / len(frames[i])
                if not ours * gap > 0:  # also where the model gives no energy
                    wrong.append([frames[i].info["config_id"], frames[j].info["config_id"], gap, ours])
    return {"gap": GAP, "pairs": pairs, "right": pairs - len(wrong), "wrong": wrong}


def shear_moduli(frames: list[Atoms], results: list) -> dict[str, dict[str, float]]:
    """Shear moduli from the stresses of strained cells, moments relaxed, atoms not, in GPa: of DFT and of the model.

    yz: C44 = σ23/2d; xy: C66 = σ12/2d; ortho: (C11 - C12)/2 = (σ11 - σ22)/4d; tet: σ33 - σ11 = 3d C', the
    (C11 - C12)/2 of a cubic crystal, and of both signs together, where there are both, that of any other.
    """
    found: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for frame, result in zip(frames, results, strict=True):
        if frame.info["config_type"].startswith("strain_"):
            phase, tag = frame.info["config_id"].removeprefix("x_").rsplit("_", 1)
            strain = -STRAIN if tag.endswith("-") else STRAIN
            for side, stress in (
                ("dft", frame.info["REF_stress"]),
                ("model", result.atoms.get_stress(voigt=False)),
            ):
                s = np.reshape(stress, (3, 3)) * EV_PER_A3_IN_GPA
                moduli = {
                    "yz": s[1, 2] / (2 * strain),
                    "xy": s[0, 1] / (2 * strain),
                    "ortho": (s[0, 0] - s[1, 1]) / (4 * strain),
                    "tet": (s[2, 2] - s[0, 0]) / (3 * strain),
                }
                found[f"{phase}_{tag.rstrip('+-')}"][side].append(moduli[tag.rstrip("+-")])
    return {
        name: {side: float(np.mean(values)) for side, values in sides.items()}
        for name, sides in found.items()
    }


def restoring_forces(frames: list[Atoms], results: list) -> dict[str, dict[str, float]]:
    """Forces on displaced atoms against their displacement, in eV/Å²: of DFT and of the model, moments relaxed."""
    found = {}
    for frame, result in zip(frames, results, strict=True):
        if frame.info["config_type"].startswith("frozen_"):
            forces = {"dft": frame.arrays["REF_forces"][1], "model": result.atoms.get_forces()[1]}
            along = forces["dft"] / np.linalg.norm(forces["dft"])
            found[frame.info["config_id"].removeprefix("x_")] = {
                side: float(force @ along / DISPLACEMENT) for side, force in forces.items()
            }
    return found


def test_errors(model: mmace_sim.MagneticMACE) -> dict[str, dict]:
    """Mean absolute errors on the test set by family, in meV."""
    frames = read_frames([DATA / "test.extxyz.xz"]).frames
    crystals = [f for f in frames if not f.atoms.info["config_type"].startswith("expanded")]
    elements = [set(f.atoms.get_chemical_symbols()) for f in crystals]
    anions = [bool(own.intersection(MOLECULES)) for own in elements]
    first = [own <= FIRST for own in elements]
    metals = [not (a or b) for a, b in zip(anions, first, strict=True)]
    groups = {
        "all": frames,
        "all but torn crystals": crystals,
        "of these, Fe, Co, Ni, Al alone": list(compress(crystals, first)),
        "of these, metals with Mn, Cr or Pt": list(compress(crystals, metals)),
        "of these, with N or O": list(compress(crystals, anions)),
    }
    for name, pattern in FAMILIES.items():
        groups[name] = [f for f in frames if re.match(pattern, f.atoms.info["config_type"])]
    found = {}
    for name, members in groups.items():
        if members:
            overall = evaluate_frames(model, members).overall
            found[name] = {"count": len(members)} | {label: error.mae for label, error in overall.items()}
    return found


def worst(model: mmace_sim.MagneticMACE) -> dict[str, float]:
    """Structures of the test set whose energy is wrong by more than `BAD`, in meV/atom, torn crystals aside."""
    errors = {
        frame.atoms.info["config_id"]: evaluate_frames(model, [frame]).overall["energy"].mae
        for frame in read_frames([DATA / "test.extxyz.xz"]).frames
        if not frame.atoms.info["config_type"].startswith("expanded")
    }
    return {name: error for name, error in sorted(errors.items()) if error > BAD}


def magnets(model: mmace_sim.MagneticMACE) -> dict[str, dict[str, float]]:
    """Exchange of ferromagnetic elements at rest: first neighbours (meV), stiffness (meV Å²), mean-field T_C (K)."""
    cells = [bulk(name[:2], *shape) for name, shape, _ in MAGNETS]
    for (_, _, moment), atoms in zip(MAGNETS, cells, strict=True):
        set_magmoms(atoms, [[0.0, 0.0, moment]] * len(atoms))
    at_rest = mmace_sim.relax(cells, model, **TIGHT)
    found = [exchange(model, result.atoms) for result in at_rest]
    keys = ("stiffness", "mean_field_temperature")
    return {
        name: {"J1": one["J"][0], **{key: one[key] for key in keys}}
        for (name, *_), one in zip(MAGNETS, found, strict=True)
    }


def measure(name: str) -> None:
    """Measure and write."""
    model = mmace_sim.load_model(name)
    sets = {part: read(DATA / f"{part}.extxyz.xz", ":") for part in ("test", "train", "valid")}
    frames = free([a for part in sets.values() for a in part])
    results = with_moments_at_rest([start(a) for a in frames], model)
    at = {id(frame): result for frame, result in zip(frames, results, strict=True)}
    rows = {key: compare(key, curve, [at[id(a)] for a in curve]) for key, curve in states(frames).items()}
    report = {
        "model": model.metadata.get("name"),
        "sets": {part: len(members) for part, members in sets.items()},
        "weights": sum(p.numel() for p in model.parameters()),
        "calibration": model.metadata.get("uncertainty", {}).get("calibration", {}),
        "test_errors": test_errors(model),
        "worst": worst(model),
        "states": list(rows.values()),
        "formation_energies": formation_energies(rows, frames, results),
        "order": order_of_states(frames, results),
        "shear_moduli": shear_moduli(frames, results),
        "restoring_forces": restoring_forces(frames, results),
        "magnets": magnets(model),
    }
    path = HERE / f"{report['model']}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    measure(sys.argv[1] if len(sys.argv) > 1 else NAME)

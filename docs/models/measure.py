"""Measure the default model against its DFT and against literature: python docs/models/measure.py [MODEL].

Writes docs/models/<name>.json. Everything is computed here; nothing is typed in but the literature
values that it is compared with.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.testing import measure_identities
from mmace_sim.units import EV_PER_A3_IN_GPA

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "examples" / "data"
LITERATURE = {
    "bcc_lattice_constant": {"PBE": 2.83, "experiment": 2.86},
    "bcc_bulk_modulus": {"PBE": [175, 195], "experiment": 170},
    "bcc_moment": {"PBE": 2.20, "experiment": 2.22},
    "C11": {"PBE": [265, 290]},
    "C12": {"PBE": [140, 155]},
    "C44": {"PBE": [95, 105]},
    "bcc_nm_minus_fm": {"PBE": 0.47},
    "bcc_afm_minus_fm": {"PBE": 0.44},
    "fcc_afmd_minus_bcc_fm": {"PBE": 0.08},
    "fcc_afm_minus_bcc_fm": {"PBE": 0.10},
    "fcc_fm_minus_bcc_fm": {"PBE": 0.155},
}


def cubic(kind: str, a: float, moments: list[float]) -> Atoms:
    """Fcc and bcc cells with given moments along z."""
    if kind == "bcc":
        atoms = Atoms("Fe2", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[a] * 3, pbc=True)
    elif kind == "fcc":
        s = a / np.sqrt(2)
        atoms = Atoms("Fe2", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[s, s, a], pbc=True)
    else:  # four fcc layers
        s = a / np.sqrt(2)
        fractions = [[0, 0, 0], [0.5, 0.5, 0.25], [0, 0, 0.5], [0.5, 0.5, 0.75]]
        atoms = Atoms("Fe4", scaled_positions=fractions, cell=[s, s, 2 * a], pbc=True)
    set_magmoms(atoms, [[0, 0, m] for m in moments])
    return atoms


def hcp(volume: float, moments: list[float]) -> Atoms:
    """Hexagonal close packing with c/a = 1.585, as in the data."""
    a = (4 * volume / (np.sqrt(3) * 1.585)) ** (1 / 3)
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, 1.585 * a]]
    atoms = Atoms("Fe2", scaled_positions=[[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]], cell=cell, pbc=True)
    set_magmoms(atoms, [[0, 0, m] for m in moments])
    return atoms


STATES = {
    "bcc_fm": ("eos_bcc_fm", lambda v: cubic("bcc", (2 * v) ** (1 / 3), [2.2, 2.2])),
    "bcc_afm": ("eos_bcc_afm", lambda v: cubic("bcc", (2 * v) ** (1 / 3), [1.6, -1.6])),
    "bcc_nm": ("eos_bcc_nm", lambda v: cubic("bcc", (2 * v) ** (1 / 3), [0, 0])),
    "fcc_fm": ("eos_fcc_fm", lambda v: cubic("fcc", (4 * v) ** (1 / 3), [2.5, 2.5])),
    "fcc_afm": ("eos_fcc_afm", lambda v: cubic("fcc", (4 * v) ** (1 / 3), [1.6, -1.6])),
    "fcc_afmd": ("eos_fcc_afmd", lambda v: cubic("afmd", (4 * v) ** (1 / 3), [1.8, 1.8, -1.8, -1.8])),
    "fcc_nm": ("eos_fcc_nm", lambda v: cubic("fcc", (4 * v) ** (1 / 3), [0, 0])),
    "hcp_nm": ("eos_hcp_nm", lambda v: hcp(v, [0, 0])),
}


def equation_of_state(volumes: np.ndarray, energies: np.ndarray) -> dict:
    """Minimum of a cubic polynomial in V^(−2/3) through the points around the lowest one."""
    order = np.argsort(volumes)
    volumes, energies = volumes[order], energies[order]
    low = int(np.clip(np.argmin(energies), 2, len(volumes) - 3)) if len(volumes) > 5 else len(volumes) // 2
    near = slice(max(low - 2, 0), low + 3)
    v, e = volumes[near], energies[near]
    x = v ** (-2 / 3)
    poly = np.polynomial.Polynomial.fit(x, e, min(3, len(v) - 1))
    grid = np.linspace(x.min(), x.max(), 20001)
    x0 = grid[np.argmin(poly(grid))]
    v0 = x0 ** (-3 / 2)
    bulk = 4 / 9 * x0**2 * poly.deriv(2)(x0) / v0 * EV_PER_A3_IN_GPA
    return {
        "volume": float(v0),
        "energy": float(poly(x0)),
        "bulk_modulus": float(bulk),
        "at_the_edge": bool(x0 in (grid[0], grid[-1])),
        "points": len(v),
    }


def compare_states(model: mmace_sim.MagneticMACE, frames: list[Atoms]) -> dict:
    """Equations of state of every magnetic state: DFT, and the model with relaxed moments at the same volumes."""
    out = {}
    for name, (config_type, build) in STATES.items():
        dft = [a for a in frames if a.info["config_type"] == config_type]
        v = np.array([a.get_volume() / len(a) for a in dft])
        e = np.array([a.info["REF_energy"] / len(a) for a in dft])
        m = np.array([np.abs(a.arrays["REF_magmom"][:, 2]).mean() for a in dft])
        if name == "fcc_fm":  # the low-spin branch is another curve
            v, e, m = v[m > 2.2], e[m > 2.2], m[m > 2.2]
        if len(v) < 3:
            continue
        result = mmace_sim.relax(
            [build(x) for x in v],
            model,
            relax_cell=False,
            collinear=True,
            magforce_tol=1e-4,
            fmax=1e-3,
            max_steps=1000,
        )
        ours = np.array([r.energy / len(r.atoms) for r in result])
        moments = np.array([np.abs(get_magmoms(r.atoms)[:, 2]).mean() for r in result])
        out[name] = {
            "volumes": v.tolist(),
            "dft": {"energies": e.tolist(), "moments": m.tolist(), **equation_of_state(v, e)},
            "model": {"energies": ours.tolist(), "moments": moments.tolist(), **equation_of_state(v, ours)},
            "status": [str(r.status) for r in result],
        }
    return out


def elastic_constants(model: mmace_sim.MagneticMACE, start: Atoms, *, relax_moments: bool) -> dict:
    """C11, C12, C44 of a cubic crystal from stresses at ±0.5 % strain, in GPa; no internal strain in bcc."""
    h = 0.005
    tensors = {"C11": np.diag([h, 0, 0]), "C44": np.array([[0, 0, 0], [0, 0, h / 2], [0, h / 2, 0]])}
    images = []
    for strain in tensors.values():
        for sign in (1, -1):
            atoms = start.copy()
            atoms.set_cell(start.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
            images.append(atoms)
    mode = "joint" if relax_moments else "fixed"
    result = mmace_sim.relax(
        images,
        model,
        relax_cell=False,
        magmoms=mode,
        collinear=True,
        magforce_tol=1e-5,
        fmax=1e-5,
        max_steps=2000,
    )
    stress = [r.atoms.get_stress(voigt=True) * EV_PER_A3_IN_GPA for r in result]
    normal, shear = (stress[0] - stress[1]) / (2 * h), (stress[2] - stress[3]) / (2 * h)
    return {"C11": float(normal[0]), "C12": float(normal[1]), "C44": float(shear[3])}


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(2)
    name = sys.argv[1] if len(sys.argv) > 1 else "default"
    model = mmace_sim.load_model(name)
    frames = [a for path in sorted(DATA.glob("fe-cdft-*.extxyz.xz")) for a in read(path, ":")]
    states = compare_states(model, frames)
    relaxed = mmace_sim.relax(
        [build(s["dft"]["volume"]) for build, s in ((STATES[n][1], states[n]) for n in states)],
        model,
        collinear=True,
        fmax=1e-4,
        stress_tol=1e-3,
        magforce_tol=1e-5,
        max_steps=2000,
    )
    report = {"model": model.metadata.get("name"), "literature": LITERATURE, "states": states, "relaxed": {}}
    ground = relaxed[0]
    for key, r in zip(states, relaxed, strict=True):
        report["relaxed"][key] = {
            "status": str(r.status),
            "energy_above_bcc_fm_meV": 1000 * (r.energy / len(r.atoms) - ground.energy / len(ground.atoms)),
            "dft_above_bcc_fm_meV": 1000 * (states[key]["dft"]["energy"] - states["bcc_fm"]["dft"]["energy"]),
            "volume": r.atoms.get_volume() / len(r.atoms),
            "moment": float(np.linalg.norm(get_magmoms(r.atoms), axis=1).mean()),
            "cell_lengths": r.atoms.cell.lengths().tolist(),
        }
    report["bcc_fm"] = {
        "lattice_constant": float(ground.atoms.cell.lengths()[0]),
        "lattice_constant_dft": (2 * states["bcc_fm"]["dft"]["volume"]) ** (1 / 3),
        "moment": float(get_magmoms(ground.atoms)[0, 2]),
        "bulk_modulus": states["bcc_fm"]["model"]["bulk_modulus"],
        "bulk_modulus_dft": states["bcc_fm"]["dft"]["bulk_modulus"],
        "elastic_relaxed_moments": elastic_constants(model, ground.atoms, relax_moments=True),
        "elastic_fixed_moments": elastic_constants(model, ground.atoms, relax_moments=False),
    }
    report["identities"] = measure_identities(model)
    path = HERE / f"{model.metadata.get('name', 'model')}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

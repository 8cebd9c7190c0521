"""Measure mmace-fe-pbe against its own DFT: python docs/models/measure.py [MODEL]; writes docs/models/<name>.json.

Equations of state at the volumes of the calculations, errors on the test set, what it says of its errors, and
identities. MODEL, another file, is measured against the same data. mmace-3d-pbe has a script of its own, measure_3d.py.
"""

import json
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.io.frames import read_frames
from mmace_sim.testing import measure_identities
from mmace_sim.training.evaluation.evaluate import evaluate_frames
from mmace_sim.units import EV_PER_A3_IN_GPA

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "examples" / "data"
NAME = "mmace-fe-pbe"
VACANCY, DISPLACED = "vac7_1", "disp_bcc_020"
"""Ids of a cell of seven atoms and one vacancy, and of ferromagnetic bcc iron with one of two atoms displaced."""
FREE = 0.01
"""Forces of the DFT above this, in eV/Å, are of a structure whose forces symmetry does not make zero."""


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
    "hcp_afm": ("eos_hcp_afm", lambda v: hcp(v, [1.4, -1.4])),
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


def test_errors(model: mmace_sim.MagneticMACE) -> dict[str, dict]:
    """Mean absolute errors on the test set, in meV, and of those structures that have forces."""
    frames = read_frames([DATA / "fe-cdft-test.extxyz.xz"]).frames
    forced = [f for f in frames if np.abs(f.atoms.arrays.get("REF_forces", 0.0)).max() > FREE]
    return {
        name: {"count": len(members)}
        | {label: error.mae for label, error in evaluate_frames(model, members).overall.items()}
        for name, members in (("all", frames), ("those with forces", forced))
    }


def single_cells(model: mmace_sim.MagneticMACE, frames: list[Atoms], ground: dict) -> dict:
    """A vacancy (eV above ferromagnetic bcc at rest) and the force on a displaced atom (eV/Å²), moments at rest."""
    dft = {a.info["config_id"]: a for a in frames if a.info["config_id"] in (VACANCY, DISPLACED)}
    starts = []
    for frame in (dft[VACANCY], dft[DISPLACED]):
        starts.append(Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=True))
        set_magmoms(starts[-1], frame.arrays["REF_magmom"])
    broken, moved = mmace_sim.relax(
        starts, model, relax_cell=False, relax_positions=False, collinear=True, magforce_tol=1e-4
    )
    energies = {"dft": dft[VACANCY].info["REF_energy"], "model": broken.energy}
    forces = {"dft": dft[DISPLACED].arrays["REF_forces"][1], "model": moved.atoms.get_forces()[1]}
    away = dft[DISPLACED].get_distance(0, 1, mic=False, vector=True) - dft[DISPLACED].cell.sum(axis=0) / 2
    return {
        "vacancy": {
            side: energy - len(broken.atoms) * ground[side]["energy"] for side, energy in energies.items()
        },
        "displacement": float(np.linalg.norm(away)),
        "restoring_force": {side: float(-force @ away / (away @ away)) for side, force in forces.items()},
    }


def measure(name: str) -> None:
    """Measure and write."""
    model = mmace_sim.load_model(name)
    parts = {part: read(DATA / f"fe-cdft-{part}.extxyz.xz", ":") for part in ("train", "valid", "test")}
    frames = [atoms for part in parts.values() for atoms in part]
    states = compare_states(model, frames)
    report = {
        "model": model.metadata.get("name"),
        "sets": {part: len(members) for part, members in parts.items()},
        "weights": sum(p.numel() for p in model.parameters()),
        "calibration": model.metadata.get("uncertainty", {}).get("calibration", {}),
        "test_errors": test_errors(model),
        "states": states,
        **single_cells(model, frames, states["bcc_fm"]),
        "identities": measure_identities(model),
    }
    path = HERE / f"{report['model']}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    measure(sys.argv[1] if len(sys.argv) > 1 else NAME)

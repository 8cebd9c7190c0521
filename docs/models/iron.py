"""What the embedded models say of iron: python docs/models/iron.py [MODEL...]; writes iron.json beside it.

The tables of docs/iron.md are written from it by iron_page.py, and everything together by refresh.py.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from measure import STATES

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.properties.elastic import ElasticTensorCalculation
from mmace_sim.properties.exchange import Exchange
from mmace_sim.properties.phonons import Phonons

PATH = Path(__file__).parent / "iron.json"
MODELS = ("mmace-3d-pbe", "mmace-fe-pbe")
"""The default model first."""
TIGHT = {"collinear": True, "fmax": 1e-4, "stress_tol": 1e-3, "magforce_tol": 1e-5, "max_steps": 2000}
VOLUMES = {
    "bcc_fm": 11.3,
    "bcc_afm": 10.9,
    "bcc_nm": 10.5,
    "fcc_afmd": 11.0,
    "fcc_afm": 10.7,
    "fcc_111": 10.8,
    "fcc_fm": 11.9,
    "fcc_nm": 10.3,
    "hcp_afm": 10.6,
    "hcp_nm": 10.2,
}
"""Volumes to start from, in Å³ per atom."""
SHELLS = 4
"""Neighbours whose exchange is listed."""


def layers_111(volume: float) -> Atoms:
    """Fcc whose layers along [111] have moments up and down, in the primitive cell of two atoms."""
    fcc = bulk("Fe", "fcc", a=(4 * volume) ** (1 / 3))
    atoms = make_supercell(fcc, [[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    set_magmoms(atoms, [[0, 0, 1.6], [0, 0, -1.6]])
    return atoms


def cell(state: str, volume: float) -> Atoms:
    """The cell to start from."""
    return layers_111(volume) if state == "fcc_111" else STATES[state][1](volume)


def elastic_constants(model: mmace_sim.MagneticMACE, bcc: Atoms) -> dict[str, dict[str, float]]:
    """Constants in GPa, with moments that follow the strain ("relaxed") and that stay ("fixed")."""
    (found,) = ElasticTensorCalculation(model, magmoms="both", relax=False).run([bcc])
    told = {}
    for moments in ("relaxed", "fixed"):
        c = found.constants[moments].c_ieee_gpa
        c11, c12, c44 = float(c[0, 0]), float(c[0, 1]), float(c[3, 3])
        told[moments] = {"B": (c11 + 2 * c12) / 3, "C11": c11, "C12": c12, "C44": c44}
    return told


def vacancy(model: mmace_sim.MagneticMACE, bcc: Atoms) -> float:
    """Energy to make a vacancy in a cube of 16 atoms, in eV."""
    perfect = bcc * (2, 2, 2)
    found = mmace_sim.relax(
        [perfect, perfect[1:]], model, relax_cell=False, collinear=True, fmax=5e-3, max_steps=1000
    )
    before, after = found
    return float(after.energy - before.energy * len(after.atoms) / len(before.atoms))


def special_points(model: mmace_sim.MagneticMACE, bcc: Atoms) -> dict[str, list[float]]:
    """Frequencies at N, P and H, each value once, in THz; by symmetry moments that follow change none of them."""
    (phonons,) = Phonons(model, supercell=[4, 4, 4], magmoms="fixed").run([bcc])
    points = {name: q for name, q in phonons.path.points.items() if name in "NPH"}
    found = phonons.phonon.run_qpoints(list(points.values())).frequencies
    return {name: np.unique(np.round(values, 2)).tolist() for name, values in zip(points, found, strict=True)}


def exchange(model: mmace_sim.MagneticMACE, crystal: Atoms) -> dict[str, Any]:
    """Exchange by second derivatives, in meV, and what follows: stiffness (meV Å²) and mean-field temperature (K)."""
    (found,) = Exchange(model, cutoff=6.0, routes=("derivatives",), lengths="rigid").run([crystal])
    shells = found.pairs.representatives()[:SHELLS]
    return {
        "distances": found.pairs.distances[shells].tolist(),
        "J": (1000 * found.isotropic("derivatives")[shells]).tolist(),
        "stiffness": 1000 * float(found.stiffness),
        "mean_field_temperature": float(found.temperature),
    }


def state(result: Any, ground: float) -> dict[str, Any]:
    """One state at rest: energy above bcc FM (meV/atom), volume (Å³ per atom), mean length of the moments (μB)."""
    lengths = result.atoms.cell.lengths()
    return {
        "energy": 1000 * (result.energy / len(result.atoms) - ground),
        "volume": result.atoms.get_volume() / len(result.atoms),
        "moment": float(np.linalg.norm(get_magmoms(result.atoms), axis=1).mean()),
        "cell_lengths": lengths.tolist(),
        "status": str(result.status),
    }


def iron(model: mmace_sim.MagneticMACE) -> dict[str, Any]:
    """What one model says of iron, at rest."""
    starts = [cell(name, volume) for name, volume in VOLUMES.items()]
    found = dict(zip(VOLUMES, mmace_sim.relax(starts, model, **TIGHT), strict=True))
    bcc = found["bcc_fm"].atoms
    ground = found["bcc_fm"].energy / len(bcc)
    demagnetised = cell("bcc_nm", bcc.get_volume() / len(bcc))
    (squeezed,) = mmace_sim.relax([demagnetised], model, relax_cell=False, magmoms="fixed")
    return {
        "lattice_constant": float(bcc.cell.lengths()[0]),
        "moment": float(np.abs(get_magmoms(bcc)[0]).max()),
        "elastic": elastic_constants(model, bcc),
        "phonons": special_points(model, bcc),
        "states": {name: state(result, ground) for name, result in found.items()},
        "bcc_nm_at_the_volume_of_fm": 1000 * (squeezed.energy / len(squeezed.atoms) - ground),
        "vacancy": vacancy(model, bcc),
        "exchange": exchange(model, bcc),
    }


def measure(names: list[str]) -> None:
    """Measure models anew and keep what is known of others."""
    measured = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    measured |= {name: iron(mmace_sim.load_model(name)) for name in names}
    PATH.write_text(json.dumps({name: measured[name] for name in MODELS}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    measure(sys.argv[1:] or list(MODELS))

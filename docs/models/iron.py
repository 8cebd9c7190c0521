"""Iron by the embedded models, side by side: python docs/models/iron.py (a minute); writes docs/models/iron.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from card_3d import IRON_MODELS
from measure import STATES, elastic_constants

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.exchange import Exchange
from mmace_sim.properties.phonons import Phonons

HERE = Path(__file__).parent
TIGHT = {"collinear": True, "fmax": 1e-4, "stress_tol": 1e-3, "magforce_tol": 1e-5, "max_steps": 2000}
VOLUME = {
    "bcc_fm": 11.3,
    "bcc_afm": 10.9,
    "bcc_nm": 10.5,
    "fcc_afm": 10.7,
    "fcc_afmd": 11.0,
    "fcc_nm": 10.3,
    "hcp_nm": 10.2,
}
"""Volumes to start from, in Å³ per atom."""


def vacancy(model: mmace_sim.MagneticMACE, bcc: Atoms) -> float:
    """Energy to make a vacancy in a cube of 16 atoms, in eV."""
    cell = bcc * (2, 2, 2)
    found = mmace_sim.relax(
        [cell, cell[1:]], model, relax_cell=False, collinear=True, fmax=5e-3, max_steps=1000
    )
    perfect, broken = found
    return float(broken.energy - perfect.energy * len(broken.atoms) / len(perfect.atoms))


def special_points(phonons: Any) -> dict[str, list[float]]:
    """Frequencies at N, P and H, each value once, in THz."""
    points = {name: q for name, q in phonons.path.points.items() if name in "NPH"}
    found = phonons.phonon.run_qpoints(list(points.values())).frequencies
    return {name: np.unique(np.round(values, 2)).tolist() for name, values in zip(points, found, strict=True)}


def iron(model: mmace_sim.MagneticMACE) -> dict[str, Any]:
    """What one model says of iron, at rest."""
    found = mmace_sim.relax([STATES[name][1](volume) for name, volume in VOLUME.items()], model, **TIGHT)
    energies = {name: r.energy / len(r.atoms) for name, r in zip(VOLUME, found, strict=True)}
    bcc = found[0].atoms
    moduli = elastic_constants(model, bcc, relax_moments=True)
    (phonons,) = Phonons(model, supercell=[4, 4, 4]).run([bcc])
    (exchange,) = Exchange(model, cutoff=6.0, routes=("derivatives",), lengths="rigid").run([bcc])
    shells = exchange.isotropic("derivatives")[exchange.pairs.representatives()]
    return {
        "lattice_constant": float(bcc.cell.lengths()[0]),
        "moment": float(np.abs(get_magmoms(bcc)[0]).max()),
        "bulk_modulus": (moduli["C11"] + 2 * moduli["C12"]) / 3,
        **moduli,
        **special_points(phonons),
        **{name: 1000 * (energy - energies["bcc_fm"]) for name, energy in energies.items()},
        "vacancy": vacancy(model, bcc),
        "J1": 1000 * float(shells[0]),
        "J2": 1000 * float(shells[1]),
        "status": [str(r.status) for r in found],
    }


if __name__ == "__main__":
    measured = {name: iron(mmace_sim.load_model(name)) for name in IRON_MODELS}
    (HERE / "iron.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")

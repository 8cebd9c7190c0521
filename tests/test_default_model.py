"""The embedded models on iron, each against the DFT that it was trained on; the default on alloys is in test_model_3d.py."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read
from embedded import BOTH, IRON_MODEL

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.registry import DEFAULT_MODEL
from mmace_sim.model.uncertainty import Domain, evaluate_with_uncertainty

ROOT = Path(__file__).parents[1]
TEST_SET = ROOT / "examples" / "data" / "fe-cdft-test.extxyz.xz"


class Iron(NamedTuple):
    """Iron by one DFT: the minimum of bcc FM and energies of other states at their own volumes above it, in eV/atom."""

    energy: float
    lattice_constant: float  # Å, of the equation of state
    moment: float  # μB in the sphere of that code
    bcc_afm: float
    bcc_nm: float


DFT = {
    "mmace-3d-pbe": Iron(-9.055, 2.843, 2.20, 0.417, 0.447),  # GPAW: eos_Fe_bcc_* of examples/data/mag3d-gpaw
    IRON_MODEL: Iron(-3385.98, 2.834, 2.24, 0.402, 0.411),  # ABINIT: fe-cdft of examples/data
}


@pytest.fixture(scope="module", params=BOTH)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return mmace_sim.load_model(name)


def test_default_is_the_model_of_that_name():
    assert mmace_sim.load_model().metadata["name"] == DEFAULT_MODEL
    assert mmace_sim.load_model("default").metadata["name"] == DEFAULT_MODEL


def bcc(moments, a=2.85):
    atoms = bulk("Fe", "bcc", a=a, cubic=True)
    set_magmoms(atoms, [[0, 0, m] for m in moments])
    return atoms


def fcc(moments, a=3.5):
    atoms = bulk("Fe", "bcc", a=a, cubic=True)
    atoms.set_cell([a / 2**0.5, a / 2**0.5, a], scale_atoms=True)
    set_magmoms(atoms, [[0, 0, m] for m in moments])
    return atoms


def test_bcc_iron_has_the_energy_lattice_constant_and_moment_of_its_dft(model, name):
    dft = DFT[name]
    (result,) = mmace_sim.relax(bcc([2.0, 2.0]), model, fmax=1e-4, stress_tol=1e-3, magforce_tol=1e-5)
    assert result.status == "converged"
    assert result.energy / 2 == pytest.approx(dft.energy, abs=0.02)
    assert result.atoms.cell.lengths() == pytest.approx([dft.lattice_constant] * 3, abs=0.015)
    assert get_magmoms(result.atoms)[:, 2] == pytest.approx([dft.moment] * 2, abs=0.1)


def test_order_of_the_magnetic_states(model, name):
    dft = DFT[name]
    starts = {
        "bcc FM": bcc([2.2, 2.2]),
        "fcc AFM": fcc([1.6, -1.6]),
        "fcc FM": fcc([2.5, 2.5], a=3.64),
        "bcc AFM": bcc([1.5, -1.5]),
        "bcc NM": bcc([0.0, 0.0], a=2.76),
    }
    results = mmace_sim.relax(list(starts.values()), model)
    status = {state: r.status for state, r in zip(starts, results, strict=True)}
    assert set(status.values()) <= {"converged", "saddle"}
    assert (status["bcc FM"], status["bcc NM"]) == ("converged", "saddle")
    energy = {state: r.energy / 2 for state, r in zip(starts, results, strict=True)}
    assert energy["bcc FM"] < energy["fcc AFM"] < energy["bcc AFM"] < energy["bcc NM"]
    assert energy["bcc FM"] < energy["fcc FM"] < energy["bcc AFM"]
    assert energy["bcc AFM"] - energy["bcc FM"] == pytest.approx(dft.bcc_afm, abs=0.04)
    assert energy["bcc NM"] - energy["bcc FM"] == pytest.approx(dft.bcc_nm, abs=0.06)


def test_errors_of_the_model_of_iron_on_its_test_set():
    model = mmace_sim.load_model(IRON_MODEL)
    errors = {"energy": [], "forces": [], "magforces": []}
    for frame in read(TEST_SET, ":"):
        atoms = frame.copy()
        set_magmoms(atoms, frame.arrays["REF_magmom"])
        out = evaluate(model, graph_from_atoms(atoms, model.r_max))
        errors["energy"].append((out["energy"].item() - frame.info["REF_energy"]) / len(frame))
        for label in ("forces", "magforces"):
            reference = frame.arrays.get(f"REF_{label}")
            if reference is not None:
                errors[label].append((out[label].numpy() - reference).ravel())
    mean = {label: 1000 * np.abs(np.hstack(values)).mean() for label, values in errors.items()}
    assert mean["energy"] < 5  # meV/atom
    assert mean["forces"] < 60  # meV/Å
    assert mean["magforces"] < 30  # meV/μB


def test_float32_agrees_with_float64(model, name):
    single = mmace_sim.load_model(name, dtype=torch.float32)
    atoms = bcc([2.2, 1.9])
    atoms.rattle(0.05, seed=0)
    exact = evaluate(model, graph_from_atoms(atoms, model.r_max))
    fast = evaluate(single, graph_from_atoms(atoms, model.r_max, dtype=torch.float32))
    assert fast["energy"].item() == pytest.approx(exact["energy"].item(), abs=1e-4)
    assert (fast["forces"] - exact["forces"]).abs().max() < 1e-3


def test_model_card_is_in_the_file(model, name):
    for key in ("name", "training_data", "errors", "license", "citation"):
        assert model.metadata.get(key), key
    assert model.metadata["name"] == name
    json.dumps(model.metadata)


def _verdicts(model, structures):
    found = evaluate_with_uncertainty(model, graph_from_atoms(structures, model.r_max))
    return [str(Domain.at(distance)) for distance in found["distance"].tolist()]


def _iron(crystal, moments, **sizes):
    atoms = bulk("Fe", crystal, **sizes)
    atoms.arrays.pop("initial_magmoms", None)
    set_magmoms(atoms, np.broadcast_to(moments, len(atoms)))
    return atoms


def test_bulk_phases_are_inside_of_its_domain(model):
    structures = []
    for volume in (10.0, 11.0, 12.0):
        cube = {"a": (2 * volume) ** (1 / 3), "cubic": True}
        structures += [_iron("bcc", m, **cube) for m in (0.0, 0.9 + 0.12 * volume, [1.3, -1.3])]
        cube["a"] = (4 * volume) ** (1 / 3)
        structures += [_iron("fcc", m, **cube) for m in (0.0, [1.3, -1.3, -1.3, 1.3])]
    for volume in (10.0, 11.0):
        a = (volume * 2 / (1.58 * np.sqrt(3) / 2)) ** (1 / 3)
        structures.append(_iron("hcp", 0.0, a=a, c=1.58 * a))
    assert _verdicts(model, structures) == ["inside"] * len(structures)


def test_rounding_of_directions_changes_no_verdict(model):
    """Also in a model whose data are collinear; an angle of a radian is seen by both."""
    cube = _iron("bcc", 2.25, a=2.83, cubic=True).repeat(2)
    tilted = []
    for angle in (1e-5, 1e-3, 1.0):
        tilted.append(cube.copy())
        set_magmoms(
            tilted[-1], 2.25 * np.array([[np.sin(k * angle), 0.0, np.cos(k * angle)] for k in range(16)])
        )
    assert _verdicts(model, [cube, *tilted[:2]]) == ["inside"] * 3
    assert _verdicts(model, tilted[2:]) == ["outside"]


def test_defects_are_not_inside(model):
    cube = _iron("bcc", 2.25, a=2.83, cubic=True)
    vacancy, slab, interstitial = cube.repeat(2), cube.repeat((1, 1, 3)), cube.repeat(2)
    del vacancy[0]
    slab.cell[2, 2] += 10.0
    del interstitial.arrays["initial_magmoms"]
    interstitial += Atoms("Fe", [[1.415, 1.415, 0.0]])
    set_magmoms(interstitial, [2.25] * 17)
    assert "inside" not in _verdicts(model, [vacancy, slab, interstitial])
    assert _verdicts(model, [slab, interstitial]) == ["outside"] * 2

"""`--max-uncertainty`: what a model knows too little about stops, and is kept as a candidate."""

import csv
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from cli_tools import mmace_sim, summary_of, write_tiny_model
from embedded import IRON_MODEL

import mmace_sim as package
from mmace_sim.data.candidates import load_candidates
from mmace_sim.errors import UncalibratedModelError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.md import MolecularDynamics
from mmace_sim.properties.md.output import MDComputation
from mmace_sim.structures.domain import domain_entry


@pytest.fixture(scope="module")
def crystals():
    """A bulk crystal, and one that lacks an atom and is displaced: far from the data of the model."""
    good = bulk("Fe", a=2.84, cubic=True)
    good.positions[1] += 0.03
    broken = bulk("Fe", a=2.84, cubic=True) * (2, 2, 1)
    del broken[0]
    broken.positions[0] += (0.5, 0.3, 0.0)
    for atoms in (good, broken):
        set_magmoms(atoms, np.full(len(atoms), 2.2))
    return good, broken


@pytest.fixture(scope="module")
def limit(crystals):
    """Between the uncertainties of both."""
    sizes = [domain_entry(package.load_model(IRON_MODEL), atoms)["forces_uncertainty"] for atoms in crystals]
    assert sizes[1] > 2 * sizes[0]
    return float(np.sqrt(sizes[0] * sizes[1]))


def test_a_relaxation_stops_where_the_model_knows_too_little(crystals, limit):
    good, broken = package.relax(list(crystals), IRON_MODEL, max_uncertainty=limit)
    assert good.status == "converged"
    assert broken.status == "uncertain"
    assert broken.steps == 0
    assert f"--max-uncertainty is {limit:g}" in broken.message
    assert package.relax([crystals[1]], IRON_MODEL, max_steps=3).results[0].status == "max_steps"


def test_what_is_in_doubt_at_the_start_may_be_allowed():
    far = bulk("Fe", a=2.84, cubic=True)
    set_magmoms(far, [2.2, 2.2])
    far.set_cell(far.cell * 1.04, scale_atoms=True)
    model = package.load_model(IRON_MODEL)
    start = domain_entry(model, far)["forces_uncertainty"]
    (result,) = package.relax([far], model, max_uncertainty=0.9 * start)
    assert result.status == "uncertain"
    (result,) = package.relax([far], model, max_uncertainty=1.5 * start)
    assert result.status == "converged"


def test_dynamics_stop_and_frames_tell(crystals, limit):
    options = {"n_steps": 20, "record_every": 10, "temperature": 50.0}
    good, broken = MolecularDynamics(IRON_MODEL, max_uncertainty=limit, **options).run(list(crystals))
    assert (good.status, broken.status) == ("finished", "uncertain")
    assert broken.n_steps == 0
    assert [frame["step"] for frame in good.frames] == [0, 10, 20]
    entry = domain_entry(package.load_model(IRON_MODEL), good.atoms)
    assert good.frames[-1]["forces_uncertainty"] == pytest.approx(entry["forces_uncertainty"], rel=1e-3)
    assert good.frames[-1]["domain_distance"] == pytest.approx(entry["domain_distance"], rel=1e-3)


@pytest.mark.parametrize("command", ["relax", "md"])
def test_the_command_keeps_candidates(crystals, limit, tmp_path, command):
    for name, atoms in zip(("good", "broken"), crystals, strict=True):
        atoms.write(tmp_path / f"{name}.extxyz")
    options = ["-m", IRON_MODEL, *(["--steps", 10, "-T", 50] if command == "md" else [])]
    out = tmp_path / "run"
    done = mmace_sim(command, tmp_path / "good.extxyz", tmp_path / "broken.extxyz", "--max-uncertainty", limit,
                     "-o", out, *options)  # fmt: skip
    assert done.exit_code == 3, done.output
    entries = {entry["name"]: entry for entry in summary_of(out)["structures"]}
    assert entries["broken.extxyz"]["status"] == "uncertain"
    assert entries["broken.extxyz"]["domain"] in ("edge", "outside")
    assert entries["broken.extxyz"]["energy_uncertainty"] > 0
    assert entries["good.extxyz"]["status"] in ("converged", "finished")
    (kept,), _ = load_candidates([out / "candidates.extxyz"])
    assert kept.info["config_id"] == f"broken.extxyz-{command}-uncertain"
    assert len(kept) == 7
    assert "candidates.extxyz" in done.output
    if command == "md":
        rows = list(csv.DictReader((out / "good" / "thermo.csv").read_text().splitlines()))
        assert float(rows[-1]["forces_uncertainty"]) < limit
        again = mmace_sim(command, tmp_path / "good.extxyz", tmp_path / "broken.extxyz", "--max-uncertainty", limit,
                          "-o", out, *options, "--resume")  # fmt: skip
        assert again.exit_code == 3
        assert summary_of(out)["structures"][1]["status"] == "uncertain"


def test_a_kill_between_the_last_frame_and_the_result_changes_nothing(crystals, limit, tmp_path, monkeypatch):
    crystals[1].write(tmp_path / "broken.extxyz")
    options = ["-m", IRON_MODEL, "--max-uncertainty", limit, "--steps", 10, "-T", 50]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert mmace_sim("md", tmp_path / "broken.extxyz", "-o", whole, *options).exit_code == 3

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MDComputation, "finish", kill)
        assert mmace_sim("md", tmp_path / "broken.extxyz", "-o", killed, *options).exit_code == 130
    assert mmace_sim("md", tmp_path / "broken.extxyz", "-o", killed, *options, "--resume").exit_code == 3
    assert summary_of(killed)["structures"] == summary_of(whole)["structures"]
    table = Path("broken") / "thermo.csv"
    assert (killed / table).read_bytes() == (whole / table).read_bytes()


def test_without_doubt_there_are_no_candidates(crystals, tmp_path):
    crystals[0].write(tmp_path / "good.extxyz")
    limit = ("-m", IRON_MODEL, "--max-uncertainty", 100)
    done = mmace_sim("relax", tmp_path / "good.extxyz", *limit, "-o", tmp_path / "run")
    assert done.exit_code == 0
    assert not (tmp_path / "run" / "candidates.extxyz").exists()


def test_a_model_that_cannot_tell_says_so(tmp_path):
    write_tiny_model(tmp_path / "tiny.safetensors")
    with pytest.raises(UncalibratedModelError, match="mmace-sim calibrate"):
        package.relax([bulk("Fe")], tmp_path / "tiny.safetensors", max_uncertainty=0.1)

"""Numbers that are reported are those that were computed: residual forces, evaluations, relaxed moments, advice."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import read
from ase.spacegroup import crystal
from counting import Counting
from typer.testing import CliRunner

from mmace_sim.cli.app import app
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.md import MolecularDynamics
from mmace_sim.properties.phonons import Phonons
from mmace_sim.properties.singlepoint import SinglePoint
from mmace_sim.structures.model_choice import which_model
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel

CASES = Path(__file__).parent / "cases" / "start"


def fcc(a=2.5 * 2**0.5, rattle=0.0):
    atoms = bulk("Fe", "fcc", a=a, cubic=True)
    atoms.rattle(rattle, seed=1)
    set_magmoms(atoms, [[0, 0, 1.9]] * 4)
    return atoms


@pytest.mark.parametrize("magmoms", ["fixed", "relaxed"])
def test_phonons_of_a_crystal_that_is_not_at_rest_say_so(magmoms):
    toy = MagneticMaceModel(HeisenbergModel())
    settings = {"relax": False, "magmoms": magmoms, "supercell": [1], "mesh": 5.0, "magforce_tol": 1e-3}
    moving, resting = Phonons(toy, **settings).run([fcc(rattle=0.05), fcc()])
    forces = np.linalg.norm(moving.crystal.atoms.get_forces(), axis=1).max()
    assert moving.crystal.max_force == pytest.approx(forces)
    assert moving.crystal.max_force > 0.1
    assert moving.crystal.max_stress > 0.5
    assert f"not at rest: forces up to {forces:.3f} eV/Å" in moving.message
    assert "not at rest" not in resting.message


def test_the_residual_force_is_in_the_summary_of_phonons(tmp_path):
    run = CliRunner().invoke(
        app,
        ["phonons", str(CASES / "bcc_rattled.extxyz"), "--no-relax", "--supercell", "1",
         "-o", str(tmp_path / "p"), "--threads", "1", "--no-plots"],
    )  # fmt: skip
    entry = json.loads((tmp_path / "p" / "summary.json").read_text())["structures"][0]
    rattled = read(CASES / "bcc_rattled.extxyz")
    (point,) = SinglePoint("default", magmoms="relaxed").run([rattled])
    assert entry["max_force"] == pytest.approx(np.linalg.norm(point.forces, axis=1).max(), rel=1e-3), (
        run.output
    )
    assert 0.4 < entry["max_force"] < 1.6
    assert "not at rest" in entry["message"]
    assert "not at rest" in run.output


@pytest.mark.parametrize("spins", ["frozen", "adiabatic"])
def test_evaluations_of_dynamics_are_those_that_were_called(spins):
    toy = Counting(HeisenbergModel())
    dynamics = MolecularDynamics(toy, spins=spins, n_steps=8, record_every=8, temperature=500.0, timestep=2.0)
    (result,) = dynamics.run([fcc()])
    assert result.frames[-1]["n_evaluations"] == toy.n_calls
    assert (toy.n_calls > 9) == (spins == "adiabatic")


def test_a_pressure_needs_a_volume_and_a_collapse_ends_a_simulation():
    slab = fcc()
    slab.set_cell([*slab.cell.lengths()[:2], 20.0])
    toy = MagneticMaceModel(HeisenbergModel())
    (refused,) = MolecularDynamics(toy, ensemble="npt", n_steps=1).run([slab])
    assert refused.status == "failed"
    assert "vacuum" in refused.message
    (free,) = MolecularDynamics(toy, ensemble="nvt", n_steps=1, record_every=1).run([slab])
    assert free.frames[-1]["pressure"] is None
    deep = HeisenbergModel(morse=(8.0, 1.4, 2.5))
    deep.reference = SimpleNamespace(atomic_energies=torch.tensor([-8.0], dtype=torch.float64))
    (collapsed,) = MolecularDynamics(MagneticMaceModel(deep), n_steps=2).run([fcc()])
    assert collapsed.status == "exploded"


def test_guessed_moments_are_relaxed_before_they_are_frozen(tmp_path):
    def run(name, *options):
        done = CliRunner().invoke(
            app,
            [
                "md",
                str(CASES / "bcc_Fe.cif"),
                "--steps",
                "1",
                "-o",
                str(tmp_path / name),
                "--threads",
                "1",
                *options,
            ],
        )
        assert done.exit_code == 0, done.output
        return json.loads((tmp_path / name / "summary.json").read_text())["structures"][0]

    frozen = run("frozen")
    assert frozen["mean_magmom"] == pytest.approx(2.27, abs=0.08)  # at 2.87 Å; the guess is 2.5
    assert "relaxed at fixed atoms: Fe 2." in " ".join(frozen["notes"])
    random = run("random", "--initial-magmoms", "random:3")
    assert random["mean_magmom"] == pytest.approx(2.5, abs=1e-6)


def test_outside_of_the_data_other_models_are_named(tmp_path):
    """Hematite: its elements are known, its structure is not."""
    hematite = crystal(
        ["Fe", "O"], [(0, 0, 0.3553), (0.3059, 0, 0.25)], spacegroup=167, cellpar=[5.035, 5.035, 13.747, 90, 90, 120],
        primitive_cell=True,
    )  # fmt: skip
    hematite.write(tmp_path / "hematite.cif")
    run = CliRunner().invoke(
        app, ["relax", str(tmp_path / "hematite.cif"), "-o", str(tmp_path / "r"), "--max-steps", "1", "--threads", "1"]
    )  # fmt: skip
    assert run.exit_code == 3
    assert "outside of the data of mmace-3d-pbe" in run.output
    assert "then --model mmace-matpes-pbe" in run.output


def test_what_a_model_lacks_comes_with_a_line_to_copy(tmp_path):
    bulk("EuO", "rocksalt", a=5.14).write(tmp_path / "EuO.cif")
    run = CliRunner().invoke(
        app, ["relax", str(tmp_path / "EuO.cif"), "-o", str(tmp_path / "r"), "--threads", "1"]
    )
    assert run.exit_code == 3
    assert (
        "`mmace-sim models get mmace-matpes-pbe` (84 MB, CC-BY-4.0), then run the same command again"
        in run.output
    )
    assert "train one" in which_model({84, 43, 61})
    assert "(--model NAME)" in which_model(set(read(CASES / "bcc_Fe.cif").numbers.tolist()))

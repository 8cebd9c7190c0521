"""Molecular dynamics of many structures: frames, failures, checkpoints, spins of each kind."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.constraints import FixAtoms

from mmace_sim.engine.declaration import GOOD
from mmace_sim.engine.run import Run
from mmace_sim.errors import ConfigError, OutputError, UnsupportedOptionError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.properties.md import MD, MDStatus, MolecularDynamics
from mmace_sim.properties.md.averages import averages, energy_drift
from mmace_sim.properties.md.files import SimulationFiles
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel
from mmace_sim.units import BOLTZMANN_EV_PER_K

TOY = HeisenbergModel(exchange=0.01, exchange_decay=1.5, landau=(-0.3, 0.05))


def crystal(seed=0, tilt=0.3):
    atoms = bulk("Fe", "fcc", a=3.5355, cubic=True)
    m = np.array([0.0, 0.0, 1.0]) + tilt * np.random.default_rng(seed).normal(size=(4, 3))
    set_magmoms(atoms, 1.9 * m / np.linalg.norm(m, axis=1, keepdims=True))
    return atoms


def runaway():
    atoms = crystal(5)
    atoms.set_velocities(np.array([[20.0, 0, 0], [-20.0, 0, 0], [0, 0, 0], [0, 0, 0]]))
    return atoms


def test_moments_are_frozen_or_follow_or_turn():
    ends = {}
    for spins in ("frozen", "adiabatic", "llg"):
        settings = {"ensemble": "nve", "spins": spins, "temperature": 200, "n_steps": 10, "record_every": 5}
        (result,) = MolecularDynamics(TOY, **settings).run(crystal())
        assert (result.status, result.n_steps) == (MDStatus.FINISHED, 10)
        assert result.column("step").tolist() == [0, 5, 10]
        assert np.ptp(result.column("energy_total")) < 2e-3
        ends[spins] = result
    start = crystal().arrays["initial_magmoms"]
    moments = {spins: result.atoms.arrays["initial_magmoms"] for spins, result in ends.items()}
    np.testing.assert_array_equal(moments["frozen"], start)
    assert ends["adiabatic"].column("max_magforce").max() <= 1e-3
    lengths = np.linalg.norm(moments["llg"], axis=1)
    np.testing.assert_allclose(lengths, 1.9, atol=1e-12)
    assert np.abs(moments["llg"] - start).max() > 0.05
    assert np.isfinite(ends["llg"].column("spin_temperature")).all()
    assert np.isnan(ends["frozen"].column("spin_temperature")).all()


def test_a_structure_that_explodes_leaves_the_others_as_they_would_be_alone():
    dynamics = MolecularDynamics(TOY, spins="llg", n_steps=6, record_every=3, seed=4)
    seen = []
    bad, good, twin = dynamics.run(
        [runaway(), crystal(), crystal()], on_finished=lambda index, _: seen.append(index)
    )
    assert bad.status is MDStatus.EXPLODED
    assert "step 0" in bad.message
    assert (good.status, twin.status) == (MDStatus.FINISHED, MDStatus.FINISHED)
    assert seen[0] == 0
    (alone,) = dynamics.run(crystal())
    np.testing.assert_allclose(good.atoms.positions, alone.atoms.positions, atol=1e-9)
    assert np.abs(good.atoms.positions - twin.atoms.positions).max() > 1e-3  # noise of its own


def test_what_the_model_cannot_take_fails_alone():
    wrong = bulk("Cu", cubic=True)
    set_magmoms(wrong, np.zeros(4))
    failed, good = MolecularDynamics(TOY, n_steps=2).run([wrong, crystal()])
    assert failed.status is MDStatus.FAILED
    assert failed.message
    assert good.status is MDStatus.FINISHED


@pytest.mark.parametrize("spins", ["frozen", "adiabatic", "llg"])
def test_going_on_from_a_checkpoint_is_going_on(tmp_path, spins):
    settings = {"spins": spins, "record_every": 4, "seed": 1, "ensemble": "npt"}
    (whole,) = MolecularDynamics(TOY, n_steps=8, **settings).run(crystal())
    files = SimulationFiles(tmp_path / "one")
    MolecularDynamics(TOY, n_steps=4, **settings).run(
        crystal(), on_frame=lambda _, frame: files.append(frame)
    )
    with files.trajectory.open("a") as half_written:
        half_written.write("4\nLattice=")
    checkpoint = SimulationFiles(tmp_path / "one").resume()
    assert checkpoint.n_steps == 4
    (rest,) = MolecularDynamics(TOY, n_steps=8, **settings).run(
        crystal(), checkpoints=[checkpoint], on_frame=lambda _, frame: files.append(frame)
    )
    assert rest.column("step").tolist() == [8]
    np.testing.assert_array_equal(rest.atoms.positions, whole.atoms.positions)
    np.testing.assert_array_equal(rest.atoms.arrays["initial_magmoms"], whole.atoms.arrays["initial_magmoms"])
    assert rest.frames[-1] == whole.frames[-1]
    rows = files.rows()
    assert [row["step"] for row in rows] == [0, 4, 8]
    assert rows[-1]["energy_total"] == pytest.approx(whole.frames[-1]["energy_total"], abs=1e-10)
    last = files.last()
    np.testing.assert_allclose(last.get_momenta(), whole.atoms.get_momenta(), atol=1e-7)
    np.testing.assert_allclose(
        last.arrays["initial_magmoms"], whole.atoms.arrays["initial_magmoms"], atol=1e-7
    )


def test_a_checkpoint_without_everything_is_named(tmp_path):
    files = SimulationFiles(tmp_path)
    MolecularDynamics(TOY, n_steps=0).run(crystal(), on_frame=lambda _, frame: files.append(frame))
    with np.load(tmp_path / "checkpoint.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "forces"}
    np.savez(tmp_path / "checkpoint.npz", **kept)
    with pytest.raises(OutputError, match="without forces"):
        files.resume()


@pytest.mark.parametrize("lengths", ["fixed", "langevin"])
@pytest.mark.parametrize("spins", ["frozen", "adiabatic", "llg"])
@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_every_ensemble_takes_moments_of_every_kind(ensemble, spins, lengths):
    if lengths == "langevin" and (spins != "llg" or ensemble == "nve"):
        return  # refused, see test_contradictions_are_refused
    settings = {"ensemble": ensemble, "spins": spins, "lengths": lengths, "record_every": 3}
    (result,) = MolecularDynamics(TOY, n_steps=3, temperature=200, **settings).run(crystal())
    assert (result.status, result.message) == (MDStatus.FINISHED, "")
    start, end = result.initial_atoms, result.atoms
    assert (abs(end.get_volume() / start.get_volume() - 1) > 1e-6) == (ensemble == "npt")
    moved = np.abs(end.arrays["initial_magmoms"] - start.arrays["initial_magmoms"]).max()
    assert (moved > 1e-3) == (spins != "frozen")
    longer = np.linalg.norm(end.arrays["initial_magmoms"], axis=1) - 1.9
    assert (np.abs(longer).max() > 1e-6) == (spins == "adiabatic" or lengths == "langevin")
    assert (result.column("max_magforce").max() <= 1e-3) == (spins == "adiabatic")


def test_moments_that_follow_do_so_in_any_batch_as_alone():
    """Also when another structure of the batch comes to an end."""
    late = crystal(3)
    late.set_velocities(np.array([[0.04, 0, 0], [-0.04, 0, 0], [0, 0, 0], [0, 0, 0]]) * 250)
    settings = {"ensemble": "nve", "spins": "adiabatic", "n_steps": 8, "record_every": 8, "timestep": 2.0}
    dynamics = MolecularDynamics(TOY, **settings)
    bad, good = dynamics.run([late, crystal()])
    assert bad.status is MDStatus.EXPLODED
    (alone,) = dynamics.run(crystal())
    np.testing.assert_allclose(good.atoms.positions, alone.atoms.positions, atol=1e-12)
    moments = [r.atoms.arrays["initial_magmoms"] for r in (good, alone)]
    np.testing.assert_allclose(*moments, atol=1e-10)


def test_a_model_without_stress_runs_goes_on_and_refuses_pressure():
    bare = MagneticMaceModel(TOY, compute_stress=False)
    kept = []
    MolecularDynamics(bare, n_steps=2).run(crystal(), on_frame=lambda _, frame: kept.append(frame.checkpoint))
    (rest,) = MolecularDynamics(bare, n_steps=4).run(crystal(), checkpoints=kept[-1:])
    assert (rest.status, rest.n_steps) == (MDStatus.FINISHED, 4)
    for settings in ({"ensemble": "npt"}, {"spins": "adiabatic"}):
        with pytest.raises(UnsupportedOptionError, match="stress"):
            MolecularDynamics(bare, **settings)


def test_the_spin_temperature_is_that_of_the_structure_alone():
    dynamics = MolecularDynamics(TOY, spins="llg", ensemble="nve", n_steps=0)
    _, second = dynamics.run([crystal(1), crystal()])
    (alone,) = dynamics.run(crystal())
    for name in ("spin_curvature", "spin_torque"):
        np.testing.assert_allclose(second.column(name), alone.column(name), rtol=1e-9)


def test_the_temperature_counts_what_moves():
    """Without a bath total momentum is conserved and no part of it; fixed atoms do not count."""
    velocities = np.random.default_rng(0).normal(size=(4, 3)) * 0.01
    velocities -= velocities.mean(axis=0)
    kinetic = 0.5 * 55.845 * (velocities**2).sum(axis=1)  # ASE's units: amu (Å/time)²= eV

    def temperature(speed, ensemble, fixed=()):
        atoms = crystal()
        atoms.set_constraint(FixAtoms(list(fixed)))
        atoms.set_velocities(speed)
        (result,) = MolecularDynamics(TOY, ensemble=ensemble, n_steps=0).run(atoms)
        return result.column("temperature")[0]

    expected = 2 * kinetic.sum() / (9 * BOLTZMANN_EV_PER_K)
    drifting = velocities + np.array([0.02, 0, 0])
    assert temperature(velocities, "nve") == pytest.approx(expected)
    assert temperature(drifting, "nve") == pytest.approx(expected)
    assert temperature(velocities, "nvt") == pytest.approx(expected * 9 / 12)
    assert temperature(drifting, "nvt") > 1.5 * expected
    held = np.concatenate([np.zeros((1, 3)), velocities[1:]])
    assert temperature(held, "nve", [0]) == pytest.approx(2 * kinetic[1:].sum() / (9 * BOLTZMANN_EV_PER_K))
    assert np.isnan(temperature(0 * held, "nve", range(4)))


@pytest.mark.parametrize("settings", [{"spins": "llg", "moment_tol": 1e-300}, {"spins": "adiabatic"}])
def test_steps_whose_moments_are_not_solved_for_fail_the_run(settings):
    dynamics = MolecularDynamics(TOY, n_steps=2, **settings)
    if settings["spins"] == "adiabatic":
        dynamics.model.max_steps = 2
    (result,) = dynamics.run(crystal())
    assert (result.status, result.n_steps) == (MDStatus.UNSETTLED, 2)
    assert re.search("did not converge in [12] of 2 steps", result.message)
    assert str(result.status) not in GOOD  # exit code 3


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"no archive")
    with pytest.raises(OutputError, match=r"checkpoint\.npz"):
        SimulationFiles(tmp_path).resume()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ensemble": "nph"}, "ensemble: choose nve, nvt or npt"),
        ({"spins": "ising"}, "spins: choose frozen, adiabatic or llg"),
        ({"ensemble": "nve", "damping": 0.1}, "damping 0.1 is impossible without a heat bath"),
        ({"ensemble": "nve", "spins": "llg", "lengths": "langevin"}, "langevin are impossible"),
        ({"lengths": "langevin"}, "langevin are impossible"),
        ({"timestep": 0.0}, "timestep: Input should be greater than 0"),
        ({"g_factor": {"Xx": 2.0}}, "Xx: expected symbols"),
        ({"n_step": 3}, "Did you mean 'n_steps'"),
    ],
)
def test_contradictions_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        MolecularDynamics(TOY, **settings)


def test_averages_take_the_second_half_and_the_slope_of_all():
    rows = [
        {
            "step": k,
            "time": 10.0 * k,
            "energy_total": 0.004 * k,
            "energy_potential": 4.0,
            "temperature": 100.0 * k,
        }
        | {"mean_magmom": 2.0, "total_magmom": 1.0, "pressure": None, "volume": None, "n_evaluations": 3 * k}
        | {"spin_torque": 2.0, "spin_curvature": 50.0}
        for k in range(4)
    ]
    found = averages(rows, 4, bath=False)
    assert found["temperature"] == pytest.approx(250.0)
    assert found["energy_drift"] == pytest.approx(100.0)  # meV/atom/ps
    assert found["energy_noise"] == pytest.approx(0.0, abs=1e-9)
    assert found["spin_temperature"] == pytest.approx(0.04 / 8.617333e-5)
    assert found["pressure"] is None
    assert found["evaluations_per_step"] == 3
    assert averages(rows, 4, bath=True)["energy_drift"] is None
    assert energy_drift(np.zeros(1), np.zeros(1)) == (None, None)


def test_seeds_belong_to_structures():
    dynamics = MolecularDynamics(TOY)
    first, second, copy = dynamics.seeds([crystal(), crystal(1), crystal()])
    assert len({first, second, copy}) == 3
    assert dynamics.seeds([crystal(1)]) == [second]
    apart = dynamics.seeds([crystal(), crystal()], ["a#0", "a#1"])
    assert dynamics.seeds([crystal()], ["a#1"]) == apart[1:] != apart[:1]
    moving, held = crystal(), crystal()
    moving.set_velocities(np.ones((4, 3)))
    held.set_constraint(FixAtoms([0]))
    assert len({first, copy, *dynamics.seeds([moving, held])}) == 4
    assert torch.tensor([first]).dtype == torch.int64


def test_copies_in_other_volumes_have_other_seeds():
    def seeds(*numbers, is_volume):
        computation = MD.load()(MD, MD.settings(paths=["a.extxyz"], output="o"))
        items = [LoadedStructure("a.extxyz", k, f"a#{k}", crystal(), model="toy") for k in numbers]
        run = Run(MD, computation.settings, Path("o"), {"toy": TOY}, items, is_volume=is_volume)
        computation.prepare(run)
        return list(computation.context.values())

    first, second = seeds(0, 1, is_volume=True)
    assert first != second
    assert seeds(1, is_volume=True) == [second]
    assert seeds(1, is_volume=False) == seeds(0, is_volume=False)

"""Relaxation of many structures: right, independent of the batch, and robust against single failures."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from counting import fcc

import mmace_sim
from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel
from mmace_sim.units import EV_PER_A3_IN_GPA


@pytest.fixture
def toy():
    return MagneticMaceModel(HeisenbergModel())


TIGHT = {"fmax": 1e-4, "stress_tol": 1e-3, "magforce_tol": 1e-5, "max_steps": 1000}


@pytest.mark.parametrize("mode", ["joint", "adiabatic"])
def test_known_minimum(toy, mode):
    result = mmace_sim.relax([fcc(), fcc(a=3.7, seed=2)], toy, magmoms=mode, **TIGHT)
    assert result.n_converged == 2
    for item in result:
        assert item.energy / 4 == pytest.approx(toy.model.relaxed_energy(12), abs=1e-6)
        assert item.energy < item.energy_initial
        lengths = np.linalg.norm(get_magmoms(item.atoms), axis=1)
        assert lengths == pytest.approx(toy.model.relaxed_moment(12), abs=1e-4)
        assert (item.atoms.get_volume()) ** (1 / 3) == pytest.approx(2.5 * 2**0.5, abs=1e-4)
        assert item.atoms.get_potential_energy() == item.energy
        assert np.abs(item.atoms.get_forces()).max() < 1e-4


def test_fixed_moments_and_cell_stay(toy):
    start = fcc()
    (item,) = mmace_sim.relax(start, toy, magmoms="fixed", relax_cell=False, **TIGHT)
    assert item.status is Status.CONVERGED
    assert np.array_equal(get_magmoms(item.atoms), get_magmoms(start))
    assert np.array_equal(item.atoms.cell.array, start.cell.array)
    assert item.max_stress == pytest.approx(
        np.abs(item.atoms.get_stress()).max() * EV_PER_A3_IN_GPA
    )  # not 0: true
    assert item.max_magforce == pytest.approx(np.linalg.norm(item.magforces, axis=1).max())
    assert item.max_magforce > 0.1


def test_results_do_not_depend_on_the_batch(toy):
    structures = [fcc(a=3.5 + 0.04 * k, seed=k) for k in range(5)]
    together = mmace_sim.relax(structures, toy, max_steps=200)
    small = mmace_sim.relax(structures, toy, max_steps=200, max_batch_atoms=8)
    single = [mmace_sim.relax(atoms, toy, max_steps=200)[0] for atoms in structures]
    for a, b, c in zip(together, small, single, strict=True):
        assert a.steps == b.steps == c.steps
        assert a.energy == pytest.approx(c.energy, abs=1e-8)
        assert np.abs(a.atoms.positions - b.atoms.positions).max() < 1e-8
        assert np.abs(get_magmoms(a.atoms) - get_magmoms(c.atoms)).max() < 1e-8


def test_bad_structures_fail_alone_and_results_keep_their_order(toy):
    without = fcc()
    del without.arrays["initial_magmoms"]
    copper = fcc()
    copper.numbers[:] = 29
    seen = []
    result = mmace_sim.relax(
        [without, fcc(), copper], toy, on_finished=lambda index, item: seen.append((index, item.status))
    )
    assert [item.status for item in result] == [Status.FAILED, Status.CONVERGED, Status.FAILED]
    assert "moments" in result[0].message
    assert "Cu" in result[2].message
    assert sorted(seen) == [(0, "failed"), (1, "converged"), (2, "failed")]
    assert result[0].atoms is without


class FailsOnLargeMoments(MagneticMaceModel):
    def forward(self, state, **kwargs):
        if state.magnetic_moments.norm(dim=1).max() > 4:
            raise RuntimeError("this one cannot be done")
        return super().forward(state, **kwargs)


@pytest.mark.parametrize("moment", [(0, 0, 5.0), (0, 0, 3.95)])
def test_a_structure_that_the_model_refuses_fails_alone(moment):
    landau = HeisenbergModel(landau=(-4.0, 0.05))  # moments grow beyond 4 μB
    quiet = HeisenbergModel()
    model = FailsOnLargeMoments(landau if moment[2] < 4 else quiet)
    structures = [fcc(seed=k) for k in range(3)]
    for atoms in structures:
        set_magmoms(atoms, np.zeros((4, 3)))  # stays non-magnetic by time reversal
    structures.insert(1, fcc(moment=moment))
    result = mmace_sim.relax(structures, model)
    assert [item.status for item in result] == ["saddle", "failed", "saddle", "saddle"]
    assert "this one cannot be done" in result[1].message
    assert "stay so by time reversal" in result[0].message


def test_steps_run_out(toy):
    result = mmace_sim.relax([fcc()], toy, max_steps=3)
    assert result[0].status is Status.MAX_STEPS
    assert result[0].steps == 3
    assert "max-steps" in result[0].message


def test_molecules_and_one_atom_cells(toy):
    dimer = Atoms("Fe2", positions=[[0, 0, 0], [2.4, 0, 0]])
    set_magmoms(dimer, [[0, 0, 2.0], [0, 0, 2.0]])
    primitive = bulk("Fe", "fcc", a=3.6)
    set_magmoms(primitive, [[0, 0, 2.0]])
    result = mmace_sim.relax([dimer, primitive], toy, **TIGHT)
    assert result.n_converged == 2
    assert result[0].atoms.get_distance(0, 1) == pytest.approx(2.5, abs=1e-3)
    assert result[1].energy == pytest.approx(toy.model.relaxed_energy(12), abs=1e-6)


def test_non_finite_energies_are_a_status(toy):
    class Broken(MagneticMaceModel):
        def forward(self, state, **kwargs):
            out = super().forward(state, **kwargs)
            out["energy"] = torch.where(torch.linalg.det(state.cell) > 48.0, torch.nan, out["energy"])
            return out

    result = mmace_sim.relax([fcc(), fcc(a=3.7)], Broken(toy.model))
    assert [item.status for item in result] == [Status.CONVERGED, Status.NON_FINITE]


def test_progress_is_reported(toy):
    seen = []
    mmace_sim.relax([fcc(), fcc(seed=3)], toy, on_step=seen.append)
    assert seen[0].n_total == 2
    assert seen[-1].n_finished == 2
    assert seen[-1].n_active == 0


def test_impossible_settings(toy):
    with pytest.raises(ConfigError, match="magmoms: choose joint, adiabatic or fixed"):
        mmace_sim.relax([fcc()], toy, magmoms="frozen")
    with pytest.raises(ConfigError, match="fmax: Input should be greater than 0"):
        mmace_sim.relax([fcc()], toy, fmax=-1)


def test_a_large_change_of_volume_is_pointed_out(toy):
    (result,) = mmace_sim.relax([fcc(a=4.0)], toy)
    assert result.status is Status.CONVERGED
    assert "the volume changed by -3" in result.message

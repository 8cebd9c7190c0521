"""Single points: the same numbers as a direct evaluation, moments relaxed where asked for, one batch for all."""

import numpy as np
import pytest
import torch
from ase import Atoms
from counting import Counting, fcc

from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.model.derivatives import evaluate
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.properties.singlepoint import SinglePoint
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import initialize_state


@pytest.fixture
def toy():
    return Counting(HeisenbergModel(exchange_decay=0.5))


def test_fixed_is_a_direct_evaluation_in_one_call(toy):
    structures = [fcc(a, seed) for seed, a in enumerate((3.5, 3.6, 3.7))]
    results = SinglePoint(toy).run(structures)
    assert toy.n_calls == 1
    for atoms, result in zip(structures, results, strict=True):
        graph = toy.graph(initialize_state(atoms))
        expected = evaluate(toy.model, graph, compute_forces=True, compute_stress=True)
        assert result.status is Status.CONVERGED
        assert result.message == ""
        assert result.energy == pytest.approx(float(expected["energy"]), abs=1e-10)
        for name in ("forces", "magforces"):
            np.testing.assert_allclose(getattr(result, name), expected[name].numpy(), atol=1e-10)
        np.testing.assert_allclose(result.stress, expected["stress"][0].numpy(), atol=1e-12)
        np.testing.assert_array_equal(result.magmoms, get_magmoms(atoms))
        np.testing.assert_array_equal(result.atoms.positions, atoms.positions)
        assert result.atoms.get_potential_energy() == result.energy


def test_relaxed_moments_feel_no_magforce(toy):
    structures = [fcc(a, seed) for seed, a in enumerate((3.5, 3.6, 3.7))]
    results = SinglePoint(toy, magmoms="relaxed", magforce_tol=1e-6).run(structures)
    fixed = SinglePoint(toy).run([result.atoms for result in results])
    for atoms, result, again in zip(structures, results, fixed, strict=True):
        assert np.linalg.norm(result.magforces, axis=1).max() < 1e-6
        np.testing.assert_array_equal(result.atoms.positions, atoms.positions)
        np.testing.assert_array_equal(result.atoms.cell.array, atoms.cell.array)
        assert np.abs(result.magmoms - get_magmoms(atoms)).max() > 0.1
        assert again.energy == pytest.approx(result.energy, abs=1e-10)
        np.testing.assert_allclose(again.stress, result.stress, atol=1e-10)
    assert [r.energy for r in results] != [r.energy for r in SinglePoint(toy).run(structures)]


def test_bad_structures_fail_alone_in_order(toy):
    copper = fcc()
    copper.numbers[:] = 29
    dimer = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.5]])
    set_magmoms(dimer, [2.0, 2.0])
    seen = {}
    results = SinglePoint(toy).run([fcc(), copper, dimer, fcc(3.7)], on_finished=seen.__setitem__)
    assert [r.status for r in results] == ["converged", "failed", "converged", "converged"]
    assert "Cu" in results[1].message
    assert results[1].forces is None
    assert np.isnan(results[1].energy)
    assert len(results[2].atoms) == 2
    assert sorted(seen) == [0, 1, 2, 3]
    assert seen[3].energy == results[3].energy


def test_steps_run_out(toy):
    (result,) = SinglePoint(toy, magmoms="relaxed", max_steps=2).run([fcc()])
    assert result.status is Status.MAX_STEPS
    assert "max-steps" in result.message


def test_lengths_and_axes_can_be_kept(toy):
    start = fcc(moment=(0.0, 1.2, 0.0))
    (result,) = SinglePoint(toy, magmoms="relaxed", fix_magnitude=True).run([start])
    np.testing.assert_allclose(np.linalg.norm(result.magmoms, axis=1), 1.2, atol=1e-10)
    (result,) = SinglePoint(toy, magmoms="relaxed", collinear=True).run([start])
    np.testing.assert_allclose(result.magmoms[:, [0, 2]], 0.0, atol=1e-12)
    assert result.magmoms[0, 1] > 1.5


def test_float32_and_unknown_modes(toy):
    (result,) = SinglePoint(toy.model, dtype=torch.float32).run([fcc()])
    (exact,) = SinglePoint(toy.model).run([fcc()])
    assert result.energy == pytest.approx(exact.energy, rel=1e-5)
    with pytest.raises(ConfigError, match=r"SinglePoint: magmoms: choose fixed or relaxed .got 'adiabatic'"):
        SinglePoint(toy, magmoms="adiabatic")

"""Saddle points of the moments are told from minima, in the batch that relaxes, and can be left."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from counting import Counting
from embedded import IRON_MODEL

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.properties.relax.relaxation import Relaxation, Status
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel

A, B, J, Z = -0.4, 0.05, 0.02, 12
FIXED = {"relax_positions": False, "relax_cell": False}


@pytest.fixture
def toy():
    return Counting(HeisenbergModel(landau=(A, B), exchange=J))


def fcc(moments, a=2.5 * 2**0.5):
    atoms = bulk("Fe", "fcc", a=a, cubic=True)
    set_magmoms(atoms, np.broadcast_to(np.asarray(moments, dtype=float), (4, 3)))
    return atoms


LAYERS = np.array([1.0, 1.0, -1.0, -1.0])[:, None] * [0.0, 0.0, 2.0]


@pytest.mark.parametrize("mode", ["joint", "adiabatic"])
@pytest.mark.parametrize("length", [0.0, 1e-5])
def test_the_non_magnetic_state_is_a_saddle(toy, mode, length):
    """∂²E/∂m∂m at m = 0 is 2a − J' times the adjacency: lowest, along the ferromagnet, 2a − zJ'."""
    (result,) = mmace_sim.relax(fcc((0, 0, length)), toy, magmoms=mode)
    assert result.status is Status.SADDLE
    assert result.curvature.lowest == pytest.approx(2 * A - Z * J, abs=1e-4)
    assert result.curvature.error < 0.06
    assert "saddle" in result.message
    assert "moments that are zero grow" in result.message
    np.testing.assert_allclose(
        np.abs(result.curvature.direction @ result.curvature.direction.T), 0.25, atol=1e-3
    )
    np.testing.assert_array_equal(
        get_magmoms(result.atoms),
        get_magmoms(result.initial_atoms) if not length else get_magmoms(result.atoms),
    )


@pytest.mark.parametrize("mode", ["joint", "adiabatic"])
@pytest.mark.parametrize("start", [(0, 0, 0.0), LAYERS])
def test_perturb_follows_a_saddle_down(toy, mode, start):
    (result,) = mmace_sim.relax(fcc(start), toy, magmoms=mode, perturb=True)
    assert result.status is Status.CONVERGED
    assert result.n_pushes >= 1
    assert result.energy / 4 == pytest.approx(toy.model.relaxed_energy(Z), abs=1e-5)
    assert result.saddle_energy > result.energy + 0.1
    assert "left a saddle point" in result.message
    magmoms = get_magmoms(result.atoms)
    np.testing.assert_allclose(
        np.linalg.norm(magmoms.sum(axis=0)), 4 * toy.model.relaxed_moment(Z), atol=1e-2
    )


def test_common_rotations_and_their_axis_are_no_saddle(toy):
    """Longitudinal 8bm², transverse 4J'·2: the rotation of all costs nothing and is not the lowest."""
    (result,) = mmace_sim.relax(fcc((1.0, 1.0, 1.0)), toy)
    assert result.status is Status.CONVERGED
    assert result.message == ""
    assert result.curvature.lowest == pytest.approx(16 * J, abs=1e-3)  # one of four turned: 12 J' + 4 J'
    single = bulk("Fe", "fcc", a=2.5 * 2**0.5)
    set_magmoms(single, [[0, 0, 2.0]])
    (one,) = mmace_sim.relax(single, toy)
    assert one.status is Status.CONVERGED
    assert one.curvature.lowest == pytest.approx(8 * B * toy.model.relaxed_moment(Z) ** 2, rel=1e-3)


def test_flat_moments_and_fixed_ones_are_no_saddle():
    flat = MagneticMaceModel(HeisenbergModel(landau=(0.0, 0.0), exchange=0.0))
    (result,) = mmace_sim.relax(fcc((0, 0, 1.0)), flat)
    assert result.status is Status.CONVERGED
    assert abs(result.curvature.lowest) < 1e-3
    (zero,) = mmace_sim.relax(fcc((0, 0, 0)), flat, fix_magnitude=True)
    assert zero.status is Status.CONVERGED
    assert zero.curvature is None
    (fixed,) = mmace_sim.relax(fcc((0, 0, 0)), flat, magmoms="fixed")
    assert fixed.curvature is None


def test_constraints_decide_what_is_a_saddle(toy):
    """Layers of opposite moments only turn: with fixed axes and lengths nothing goes down."""
    collinear, free = (
        mmace_sim.relax(fcc(LAYERS), toy, collinear=constraint, fix_magnitude=constraint)[0]
        for constraint in (True, False)
    )
    assert collinear.status is Status.CONVERGED
    assert free.status is Status.SADDLE


def test_curvatures_do_not_depend_on_the_batch_and_atoms_stay(toy):
    structures = [fcc((0, 0, 0)), fcc((0.5, 0.2, 1.0), a=3.6), fcc(LAYERS), fcc((0, 0, 1.0), a=3.5)]
    together = mmace_sim.relax(structures, toy)
    for atoms, joint in zip(structures, together, strict=True):
        (alone,) = mmace_sim.relax(atoms, toy)
        assert (alone.status, alone.steps) == (joint.status, joint.steps)
        np.testing.assert_allclose(alone.curvature.values, joint.curvature.values, atol=1e-8)
        bare = Relaxation(toy, stability=False).run(atoms)[0]
        if bare.steps == alone.steps:  # probing leaves everything as it was
            np.testing.assert_array_equal(bare.atoms.positions, alone.atoms.positions)
            np.testing.assert_array_equal(get_magmoms(bare.atoms), get_magmoms(alone.atoms))
            assert bare.energy == alone.energy


def test_the_cost_is_a_few_evaluations_and_can_be_saved(toy):
    structures = [fcc(np.random.default_rng(k).normal(size=(4, 3)), a=3.5 + 0.02 * k) for k in range(6)]
    counts = {}
    for stability in (False, True):
        toy.n_systems = 0
        results = mmace_sim.relax(structures, toy, stability=stability, magforce_tol=1e-5)
        counts[stability] = toy.n_systems
        assert all((result.curvature is not None) == stability for result in results)
    assert counts[True] < 1.2 * counts[False]


def test_single_precision_knows_a_saddle():
    toy = MagneticMaceModel(HeisenbergModel(landau=(A, B), exchange=J), dtype=torch.float32)
    saddle, minimum = mmace_sim.relax([fcc((0, 0, 0)), fcc((0, 0, 2.0))], toy, magforce_tol=1e-3, fmax=0.02)
    assert saddle.status is Status.SADDLE
    assert minimum.status is Status.CONVERGED
    assert saddle.curvature.lowest == pytest.approx(2 * A - Z * J, abs=0.02)


@pytest.mark.parametrize("length", [1e-4, 1e-3, 5e-3])
def test_iron_that_hardly_has_moments_is_told_or_found(length):
    """It used to be called converged, 0.4 eV/atom above the ferromagnet."""
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True)
    ferromagnet = atoms.copy()
    set_magmoms(atoms, [[0, 0, length]] * 2)
    set_magmoms(ferromagnet, [[0, 0, 2.2]] * 2)
    low, plain = mmace_sim.relax([ferromagnet, atoms], IRON_MODEL)
    assert low.status is Status.CONVERGED
    if plain.status is Status.CONVERGED:
        assert plain.energy == pytest.approx(low.energy, abs=1e-4)
    else:
        assert plain.status is Status.SADDLE
        assert plain.energy - low.energy > 0.6
        assert plain.curvature.lowest < -0.2
    (pushed,) = mmace_sim.relax(atoms, IRON_MODEL, perturb=True)
    assert pushed.status is Status.CONVERGED
    assert pushed.energy == pytest.approx(low.energy, abs=1e-4)
    np.testing.assert_allclose(
        np.linalg.norm(get_magmoms(pushed.atoms), axis=1),
        np.linalg.norm(get_magmoms(low.atoms), axis=1),
        atol=0.01,
    )


def test_energies_are_right_to_a_twentieth_of_an_mev_and_moments_to_a_hundredth():
    """bcc antiferromagnet, a saddle with soft lengths; 1.280 or 1.201 μB used to come out, depending on the start."""
    structures = []
    for length, a in ((1.3, 2.80), (1.28, 2.75), (1.0, 2.85)):
        atoms = bulk("Fe", "bcc", a=a, cubic=True)
        set_magmoms(atoms, [[0, 0, length], [0, 0, -length]])
        structures.append(atoms)
    (exact,) = mmace_sim.relax(
        structures[0], IRON_MODEL, fmax=1e-4, stress_tol=1e-3, magforce_tol=1e-5, max_steps=3000
    )
    for result in mmace_sim.relax(structures, IRON_MODEL):
        assert result.status is Status.SADDLE
        assert "moments turn" in result.message
        assert abs(result.energy - exact.energy) / 2 < 5e-5
        np.testing.assert_allclose(
            np.linalg.norm(get_magmoms(result.atoms), axis=1),
            np.linalg.norm(get_magmoms(exact.atoms), axis=1),
            atol=0.01,
        )

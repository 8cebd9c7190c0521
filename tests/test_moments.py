"""Minima over the moments from random starts, on models whose minima are known."""

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms
from ase.build import bulk
from embedded import BOTH, IRON_MODEL

import mmace_sim
from mmace_sim.base.quantities import TORCHSIM_MAGMOMS
from mmace_sim.errors import ConfigError, StructureError, UnsupportedOptionError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.properties.moments import MomentSearch, minimize_moments
from mmace_sim.properties.moments.plots import moment_figures
from mmace_sim.properties.moments.relax import MomentRelaxation
from mmace_sim.properties.moments.starts import free_moments, random_moments, random_starts
from mmace_sim.properties.order import OrderStatus
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.properties.written import save_figures
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim.lbfgs import moment_lbfgs_init, moment_lbfgs_step
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import initialize_state
from mmace_sim.torchsim.zeeman import ZeemanModel
from mmace_sim.units import BOHR_MAGNETON_EV_PER_T

J = 0.02
"""|J'| in eV: E = +J Σ_pairs s_i·s_j over unique nearest neighbours is an antiferromagnet."""

D = 2.5


def exchange_only(exchange=-J, **settings):
    return HeisenbergModel(
        exchange=exchange, landau=(0.0, 0.0), morse=(0.0, 1.4, D), energy_per_atom=0.0, **settings
    )


def landau(a=-0.4, b=0.05, exchange=0.0):
    return HeisenbergModel(exchange=exchange, landau=(a, b), morse=(0.0, 1.4, D), energy_per_atom=0.0)


def with_moments(atoms, length=1.0):
    atoms.arrays.pop("initial_magmoms", None)
    set_magmoms(atoms, np.full(len(atoms), length))
    return atoms


def triangular(n=3, length=1.0):
    cell = [[D, 0, 0], [-D / 2, D * np.sqrt(3) / 2, 0], [0, 0, 10.0]]
    return with_moments(Atoms("Fe", [[0, 0, 0]], cell=cell, pbc=True).repeat((n, n, 1)), length)


def kagome(n=1):
    a, b = np.array([2 * D, 0, 0]), np.array([-D, D * np.sqrt(3), 0])
    atoms = Atoms("Fe3", [0 * a, a / 2, b / 2], cell=[a, b, [0, 0, 10.0]], pbc=True)
    return with_moments(atoms.repeat((n, n, 1)))


def dimer(length=1.0):
    return with_moments(Atoms("Fe2", [[0, 0, 0], [0, 0, D]], cell=[10, 10, 10], pbc=True), length)


def lone_atom(length=1.0):
    return with_moments(Atoms("Fe", cell=[10, 10, 10], pbc=True), length)


@pytest.mark.parametrize("solver", ["lbfgs", "fire"])
def test_256_starts_find_the_ground_state_of_the_triangular_lattice(solver):
    """Unit spins at 120 degrees: three bonds of −|J|/2 at each site."""
    (result,) = minimize_moments(
        triangular(), exchange_only(), starts=256, solver=solver, fix_magnitude=True, magforce_tol=1e-4
    )
    energies = np.array([start.energy for start in result.starts])
    assert result.status is OrderStatus.CONVERGED
    assert (np.abs(energies + 1.5 * J) < 1e-6).mean() >= 0.95
    lowest = result.minima[0]
    assert lowest.n_starts == result.n_lowest >= 0.95 * 256
    assert sum(minimum.n_starts for minimum in result.minima) == 256
    assert lowest.is_stable
    assert lowest.order == "non-collinear"
    assert lowest.symmetry.bns_number == "189.224"
    neighbours = [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    np.testing.assert_allclose(
        np.abs(lowest.magmoms[:3] @ lowest.magmoms[:3].T) * (1 - np.eye(3)), neighbours, atol=1e-3
    )


def test_kagome_triangles_carry_no_moment():
    """Every ground state of the kagome lattice has Σ s = 0 in each triangle: two bonds of −|J|/2 at each site."""
    (result,) = minimize_moments(kagome(), exchange_only(), starts=64, fix_magnitude=True, magforce_tol=1e-5)
    assert result.n_converged == 64
    assert result.minima[0].energy == pytest.approx(-J, abs=1e-8)
    assert np.linalg.norm(result.minima[0].magmoms.sum(axis=0)) < 1e-3


def test_lengths_and_directions_relax_together():
    """m² = (h − a)/(2b) and E = −(h − a)²/(4b) with h = 3J/2 from six neighbours at 120 degrees."""
    a, b, h = -0.4, 0.05, 1.5 * J
    (result,) = minimize_moments(
        triangular(length=2.0), landau(a, b, -J), starts=16, magforce_tol=1e-6, max_steps=1000
    )
    assert result.n_lowest == 16
    assert result.minima[0].energy == pytest.approx(-((h - a) ** 2) / (4 * b), abs=1e-9)
    lengths = np.linalg.norm(result.minima[0].magmoms, axis=1)
    np.testing.assert_allclose(lengths, np.sqrt((h - a) / (2 * b)), atol=1e-5)


def test_local_minima_of_collinear_moments_are_told_apart():
    (result,) = minimize_moments(
        triangular(length=2.0), landau(exchange=-J), starts=64, collinear=True, magforce_tol=1e-6
    )
    assert result.n_converged == 64
    assert len(result.minima) > 1
    for minimum in result.minima:
        assert minimum.is_stable
        assert np.abs(minimum.magmoms[:, :2]).max() < 1e-12 or minimum.order in ("ferri", "AFM", "FM")
        assert np.linalg.matrix_rank(minimum.magmoms, tol=1e-8) == 1
    energies = [minimum.energy for minimum in result.minima]
    assert energies == sorted(energies)
    # the same starts without the constraint all reach the non-collinear state, which is lower
    (free,) = minimize_moments(triangular(length=2.0), landau(exchange=-J), starts=4, magforce_tol=1e-4)
    assert free.minima[0].energy < energies[0] - 1e-3


def test_a_saddle_point_is_no_minimum():
    relaxation = MomentRelaxation(exchange_only(), fix_magnitude=True, magforce_tol=1e-4)
    ferromagnet, single = triangular(), dimer()
    set_magmoms(single, [1.0, -1.0])
    saddle, minimum = (result.curvature for result in relaxation.around().run([ferromagnet, single]))
    assert not saddle.is_stable
    assert minimum.is_stable
    # two spins at ±z: the antiparallel tilt costs 2J, along x and y; the common rotation is left out
    np.testing.assert_allclose(minimum.values, [2 * J], atol=1e-5)


@pytest.mark.parametrize("solver", ["lbfgs", "fire"])
def test_fixed_lengths_and_masked_moments_stay(solver):
    atoms = triangular()
    set_magmoms(atoms, np.linspace(0.5, 2.0, 9))
    (result,) = minimize_moments(
        atoms, exchange_only(), starts=8, solver=solver, fix_magnitude=True, only=[1, "2", 3], seed=5
    )
    for start in result.starts:
        assert start.status is Status.CONVERGED
        moments = get_magmoms(start.atoms)
        np.testing.assert_allclose(np.linalg.norm(moments, axis=1), np.linspace(0.5, 2.0, 9), atol=1e-12)
        kept = [0, 4, 5, 6, 7, 8]
        np.testing.assert_array_equal(moments[kept], get_magmoms(atoms)[kept])
        assert (np.abs(moments[1:4] - get_magmoms(atoms)[1:4]) > 1e-3).any()


def test_masks_without_fixed_lengths_name_elements():
    atoms = Atoms("FeAl", [[0, 0, 0], [0, 0, D]], cell=[10, 10, 10], pbc=True)
    set_magmoms(atoms, [[0.1, 0.2, 2.0], [0.3, 0.0, 0.1]])
    model = HeisenbergModel(exchange=-J, landau=(-0.4, 0.05), elements=(13, 26))
    (result,) = minimize_moments(atoms, model, starts=4, only=["Al"])
    for start in result.starts:
        np.testing.assert_array_equal(get_magmoms(start.atoms)[0], [0.1, 0.2, 2.0])
    np.testing.assert_array_equal(free_moments(atoms, ["Al"]), [False, True])
    np.testing.assert_array_equal(free_moments(atoms, ["0", 1]), [True, True])


def test_a_moment_in_a_field():
    """One moment: 2 a m + 4 b m³ = μB B, along B."""
    field = np.array([300.0, -200.0, 400.0])
    a, b = -0.4, 0.05
    strength = BOHR_MAGNETON_EV_PER_T * np.linalg.norm(field)
    (result,) = minimize_moments(lone_atom(), landau(a, b), starts=8, field=field, magforce_tol=1e-8)
    length = max(np.roots([4 * b, 0, 2 * a, -strength]).real)
    np.testing.assert_allclose(result.minima[0].magmoms[0], length * field / np.linalg.norm(field), atol=1e-6)
    assert result.minima[0].energy == pytest.approx(a * length**2 + b * length**4 - strength * length)
    assert result.n_lowest == 8


def test_a_frustrated_magnet_in_a_field():
    """Triangular lattice below saturation: M = h/(9J) along B and E = −3J/2 − h²/(18J) per site."""
    h = 0.09
    field = [0.0, 0.0, h / BOHR_MAGNETON_EV_PER_T]
    (result,) = minimize_moments(
        triangular(), exchange_only(), starts=32, field=field, fix_magnitude=True, magforce_tol=1e-5,
        max_steps=1000,
    )  # fmt: skip
    energies = np.array([start.energy for start in result.starts])
    assert (np.abs(energies + 1.5 * J + h**2 / (18 * J)) < 1e-7).mean() >= 0.95
    np.testing.assert_allclose(result.minima[0].magmoms.mean(axis=0), [0.0, 0.0, h / (9 * J)], atol=1e-3)


def test_the_field_adds_to_energy_and_magforces_only():
    atoms = triangular()
    bare = MagneticMaceModel(exchange_only())
    state = initialize_state([atoms])
    plain, out = bare(state), ZeemanModel(bare, [0.0, 0.0, 10.0])(state)
    assert float(out["energy"] - plain["energy"]) == pytest.approx(-10 * BOHR_MAGNETON_EV_PER_T * 9)
    torch.testing.assert_close(out["forces"], plain["forces"])
    shift = torch.tensor([0.0, 0.0, 10 * BOHR_MAGNETON_EV_PER_T], dtype=torch.float64).expand(9, 3)
    torch.testing.assert_close(out["magforces"] - plain["magforces"], shift)
    with pytest.raises(UnsupportedOptionError, match="three finite"):
        ZeemanModel(bare, [1.0, float("nan"), 0.0])


def test_starts_do_not_depend_on_the_batch():
    settings = {"fix_magnitude": True, "seed": 3, "stability": False}
    (alone,) = minimize_moments(triangular(), exchange_only(), starts=3, **settings)
    other, together = minimize_moments(
        [dimer(), triangular()], exchange_only(), starts=5, max_batch_atoms=40, **settings
    )
    assert other.n_converged == 5
    for one, two in zip(alone.starts, together.starts, strict=False):
        np.testing.assert_array_equal(one.magmoms_initial, two.magmoms_initial)
        np.testing.assert_allclose(get_magmoms(one.atoms), get_magmoms(two.atoms), atol=1e-8)
        assert one.steps == two.steps
        np.testing.assert_allclose(one.descent.energies, two.descent.energies, atol=1e-10)
    assert not np.array_equal(alone.starts[0].magmoms_initial, alone.starts[1].magmoms_initial)
    (again,) = minimize_moments(triangular(), exchange_only(), starts=1, **settings | {"seed": 4})
    assert not np.array_equal(alone.starts[0].magmoms_initial, again.starts[0].magmoms_initial)


def test_random_moments_are_turned_and_scaled_uniformly():
    rng = np.random.default_rng(0)
    moments = np.tile([0.0, 0.0, 2.0], (20000, 1))
    random = random_moments(moments, rng)
    scales = np.linalg.norm(random, axis=1) / 2
    assert 0 <= scales.min() < 0.001
    assert 1.499 < scales.max() <= 1.5
    assert scales.mean() == pytest.approx(0.75, abs=0.01)
    # cos of the angle between m and its image: <cos α> + <1 − cos α><n_z²> with <cos α> = 0
    cosines = random[:, 2] / (2 * scales)
    assert cosines.mean() == pytest.approx(1 / 3, abs=0.02)
    fixed = random_moments(moments, rng, fix_magnitude=True)
    np.testing.assert_allclose(np.linalg.norm(fixed, axis=1), 2.0, atol=1e-12)
    signs = random_moments(moments, rng, collinear=True, fix_magnitude=True)[:, 2] / 2
    assert set(signs) == {-1.0, 1.0}


def test_lbfgs_needs_fewer_evaluations_than_fire_and_never_climbs():
    steps = {}
    for solver in ("lbfgs", "fire"):
        (result,) = minimize_moments(
            triangular(length=2.0), landau(exchange=-J), starts=8, solver=solver, magforce_tol=1e-6,
            max_steps=1000, stability=False,
        )  # fmt: skip
        assert result.n_converged == 8
        steps[solver] = np.mean([start.steps for start in result.starts])
        for start in result.starts:
            assert len(start.descent.energies) == start.steps + 1
            assert start.descent.magforces[-1] <= 1e-6
            if solver == "lbfgs":
                assert np.diff(start.descent.energies).max() <= 1e-11
    assert steps["lbfgs"] < 0.75 * steps["fire"]


def test_lbfgs_is_a_torchsim_optimiser():
    model = MagneticMaceModel(exchange_only())
    starts = random_starts(triangular(), 2, fix_magnitude=True)
    state = moment_lbfgs_init(state=initialize_state(starts), model=model)
    first = state.energy.clone()
    for _ in range(5):
        state = moment_lbfgs_step(state=state, model=model)
    assert (state.energy < first).all()
    with pytest.warns(UserWarning, match="maximum number of steps"):
        final = ts.optimize(
            initialize_state(starts), model, optimizer=(moment_lbfgs_init, moment_lbfgs_step), max_steps=20
        )
    assert (final.energy < first).all()
    assert getattr(final, TORCHSIM_MAGMOMS).shape == (18, 3)


def test_failures_stay_alone(tmp_path):
    flat = triangular()
    set_magmoms(flat, np.zeros(9))
    foreign = with_moments(bulk("Co", "fcc", a=3.5))
    search = MomentSearch(exchange_only(), starts=2, fix_magnitude=True, max_steps=3, magforce_tol=1e-9)
    failed, unknown, unfinished = search.run([flat, foreign, triangular()])
    assert failed.status is OrderStatus.FAILED
    assert "all of them are zero" in failed.message
    assert unknown.status is OrderStatus.FAILED
    assert "2 of 2 starts did not converge" in unknown.message
    assert unfinished.status is OrderStatus.FAILED
    assert [start.steps for start in unfinished.starts] == [3, 3]
    assert save_figures(failed, tmp_path / "failed", moment_figures()) == []
    assert save_figures(unknown, tmp_path / "unknown", moment_figures()) == []
    assert len(save_figures(unfinished, tmp_path / "unfinished", moment_figures(1e-9))) == 4
    with pytest.raises(StructureError, match="only Mn"):
        free_moments(triangular(), ["Mn"])
    with pytest.raises(StructureError, match="from 0 to 8"):
        free_moments(triangular(), [9])
    for bad in ({"solver": "newton"}, {"starts": 0}, {"collinear": True, "fix_magnitude": True}):
        with pytest.raises(ConfigError):
            MomentSearch(exchange_only(), **bad)


@pytest.mark.parametrize("name", BOTH)
def test_iron_with_the_embedded_models(name):
    """bcc iron is ferromagnetic from every start, with the 2.2 μB of DFT; at 3.55 Å the lowest order of the
    fcc cell has no total moment.

    By both DFTs its layers lie below the ferromagnet there. Which compensated order is lowest differs between the models.
    """
    cells = [
        with_moments(bulk("Fe", kind, a=a, cubic=True), 2.2) for kind, a in (("bcc", 2.83), ("fcc", 3.55))
    ]
    bcc, fcc = minimize_moments(cells, mmace_sim.load_model(name), starts=4, magforce_tol=1e-5)
    assert bcc.n_lowest == 4
    assert bcc.minima[0].order == "FM"
    np.testing.assert_allclose(np.linalg.norm(bcc.minima[0].magmoms, axis=1), 2.2, atol=0.1)
    lengths = np.linalg.norm(fcc.minima[0].magmoms, axis=1)
    np.testing.assert_allclose(lengths, lengths.mean(), atol=0.01)
    assert 1.2 < lengths.mean() < 2.2
    np.testing.assert_allclose(fcc.minima[0].magmoms.sum(axis=0), 0, atol=0.02)
    assert fcc.minima[0].is_stable
    assert fcc.n_lowest >= 2


def test_moments_alone_need_no_forces_but_at_the_end():
    """Half the time of a step; forces and stress of the result are those of its moments."""
    model, asked = MagneticMaceModel(IRON_MODEL), []
    evaluate = model._evaluate
    model._evaluate = lambda graph, **wanted: asked.append(wanted["lattice"]) or evaluate(graph, **wanted)
    atoms = bulk("Fe", "bcc", a=2.9, cubic=True)
    atoms.rattle(0.05, seed=1)
    set_magmoms(atoms, [[0, 0.3, 1.8], [0, 0, 2.4]])
    for solver in ("lbfgs", "fire"):
        asked.clear()
        (result,) = MomentRelaxation(model, solver=solver).run([atoms])
        assert result.status == "converged"
        assert asked.count(True) <= 2
        assert len(asked) > 5
        again = MagneticMaceModel(IRON_MODEL)(initialize_state([result.atoms]))
        np.testing.assert_allclose(result.atoms.get_forces(), again["forces"].numpy(), atol=1e-10)
        assert abs(result.max_force - again["forces"].norm(dim=1).max()) < 1e-10
        assert result.max_force > 0.1

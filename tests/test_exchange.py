"""Exchange constants against models whose exchange is known."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.testing import HeisenbergModel, TensorExchangeModel
from mmace_sim.units import BOLTZMANN_EV_PER_K
from mmace_sim.workflows.exchange import Exchange
from mmace_sim.workflows.exchange.lattice import find_pairs, spin_lattice
from mmace_sim.workflows.exchange.magnons import spin_stiffness, spin_waves
from mmace_sim.workflows.relax import Status

A = 2.87
SHELLS = [(np.sqrt(3) / 2 * A, 0.030), (A, 0.012), (np.sqrt(2) * A, -0.004)]
CUTOFF = 4.9


def iron(magmoms=(2.0, 2.0)):
    atoms = bulk("Fe", cubic=True, a=A)
    set_magmoms(atoms, np.asarray(magmoms, dtype=float))
    return atoms


@pytest.fixture(scope="module")
def heisenberg():
    return HeisenbergModel(exchange_shells=SHELLS, unit_vectors=True, landau=(-0.4, 0.05))


@pytest.mark.parametrize("magmoms", [(2.0, 2.0), (2.0, -2.0)], ids=["fm", "afm"])
@pytest.mark.parametrize("angle", [10.0, 90.0])
def test_heisenberg_exchange_by_every_route(heisenberg, magmoms, angle):
    (result,) = Exchange(heisenberg, cutoff=CUTOFF, angle=angle, magmoms="fixed").run([iron(magmoms)])
    assert result.status is Status.CONVERGED, result.message
    known = np.zeros(len(result.pairs))  # the fourth shell has no exchange
    for distance, value in SHELLS:
        known[np.abs(result.pairs.distances - distance) < 1e-6] = value
    for route, tolerance in (("derivatives", 1e-8), ("four-state", 1e-8), ("spirals", 1e-6)):
        np.testing.assert_allclose(result.isotropic(route), known, atol=tolerance, err_msg=route)
    assert result.sum_rule_error < 1e-10
    assert result.beyond_cutoff < 1e-12
    assert np.abs(result.dmi()).max() == 0


def crystal_without_symmetry():
    atoms = Atoms(
        "FeCo", cell=[[2.9, 0.1, 0], [0.3, 3.1, 0], [0.2, 0.4, 3.3]], scaled_positions=[[0, 0, 0], [0.47, 0.55, 0.42]],
        pbc=True,
    )  # fmt: skip
    set_magmoms(atoms, [[0.0, 0.6, 0.8], [0.0, -0.6, -0.8]])
    return atoms


@pytest.mark.parametrize(
    "couplings", [{"dmi": (0.004, 0.002)}, {"anisotropic": 0.006}], ids=["dmi", "anisotropic"]
)
def test_tensors_with_spin_orbit_coupling(couplings):
    model = TensorExchangeModel(exchange=0.03, r_max=3.6, elements=(26, 27), **couplings)
    (result,) = Exchange(model, cutoff=3.65, magmoms="fixed").run([crystal_without_symmetry()])
    assert result.status is Status.CONVERGED, result.message
    known = model.tensor(torch.as_tensor(result.pairs.vectors)).numpy()
    assert result.spin_orbit
    assert np.abs(known[:, 0, 0]).max() > 0.002
    for route in ("derivatives", "four-state"):
        np.testing.assert_allclose(result.tensors[route], known, atol=1e-8, err_msg=route)
    np.testing.assert_allclose(result.isotropic("spirals"), np.trace(known, axis1=1, axis2=2) / 3, atol=1e-6)
    d, g = np.abs(result.dmi()).max(), np.abs(result.anisotropic()).max()
    assert (d > 5e-4) == ("dmi" in couplings)
    assert (g > 3e-4) == ("anisotropic" in couplings)


def test_magnons_stiffness_and_temperature_follow_the_formulas(heisenberg):
    (result,) = Exchange(heisenberg, cutoff=CUTOFF, routes=["derivatives"], magmoms="fixed").run([iron()])
    lattice, pairs, exchange = result.lattice, result.pairs, result.isotropic()
    q = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 3))
    waves = 2 * np.pi * q @ np.linalg.inv(lattice.cell).T
    omega = 2 / 2.0 * (exchange * (1 - np.cos(waves @ pairs.vectors.T))).sum(axis=1)
    tensors = result.tensors["derivatives"]
    np.testing.assert_allclose(spin_waves(lattice, pairs, tensors, q)[0][:, 0], omega, rtol=1e-9)
    assert result.stiffness == pytest.approx((exchange * pairs.distances**2).sum() / (3 * 2.0), rel=1e-9)
    assert result.temperature == pytest.approx(exchange.sum() / (3 * BOLTZMANN_EV_PER_K), rel=1e-9)
    assert result.magnons.stable
    assert result.difference() is None


def test_stiffness_of_several_sites_is_that_of_the_lowest_magnon():
    atoms = crystal_without_symmetry()
    set_magmoms(atoms, [1.0, 2.0])
    lattice = spin_lattice(atoms)
    pairs = find_pairs(lattice, 3.5)
    tensors = pairs.average(np.exp(-pairs.distances)[:, None, None] * np.eye(3), lattice.rotations)
    exchange = tensors[:, 0, 0]
    q = 1e-3 * np.eye(3)  # in 1/Å
    scaled = q @ lattice.cell.T / (2 * np.pi)
    energies = spin_waves(lattice, pairs, tensors, scaled)[0][:, 0]
    assert spin_stiffness(lattice, pairs, exchange) == pytest.approx(energies.mean() / 1e-6, rel=1e-4)


def test_antiferromagnet_has_pairs_of_magnons_and_no_stiffness():
    model = HeisenbergModel(exchange_shells=[(SHELLS[0][0], -0.03)], unit_vectors=True)
    (result,) = Exchange(model, cutoff=2.9, routes=["derivatives"], magmoms="fixed").run([iron((2.0, -2.0))])
    gamma = np.cos(np.pi * 0.3) ** 3  # simple cubic q = (0.3, 0.3, 0.3) · 2π/a: cos(qa/2)³
    tensors = result.tensors[result.route]
    energies = spin_waves(result.lattice, result.pairs, tensors, np.full((1, 3), 0.3))[0][0]
    cubic = np.allclose(result.lattice.cell, A * np.eye(3))
    assert cubic
    np.testing.assert_allclose(energies, 8 * 0.03 * np.sqrt(1 - gamma**2), rtol=1e-9)
    assert result.stiffness is None
    assert result.temperature == pytest.approx(8 * 0.03 / (3 * BOLTZMANN_EV_PER_K))


def test_lengths_that_follow_change_nothing_in_a_collinear_order():
    settings = {"cutoff": 2.9, "routes": ["derivatives"], "magmoms": "fixed"}
    soft = HeisenbergModel(exchange_shells=[(SHELLS[0][0], 0.01)])
    rigid = Exchange(soft, **settings).run([iron()])[0]
    relaxed = Exchange(soft, lengths="relaxed", **settings).run([iron()])[0]
    np.testing.assert_allclose(relaxed.isotropic(), rigid.isotropic(), atol=1e-12)
    np.testing.assert_allclose(rigid.isotropic()[:8], 0.01 * 4.0, atol=1e-9)


def test_unusable_structures_and_settings_are_refused(heisenberg):
    canted = iron([[0, 0, 2.0], [0, 2.0, 0]])
    nonmagnetic = iron([0.0, 0.0])
    results = Exchange(heisenberg, cutoff=2.6, routes=["derivatives"], magmoms="fixed").run(
        [canted, nonmagnetic]
    )
    assert "collinear" in results[0].message
    assert {result.status for result in results} <= {Status.FAILED, Status.NON_FINITE}
    for wrong in ({"routes": ["guess"]}, {"lengths": "soft"}, {"angle": 120.0}, {"cutoff": -1.0}):
        with pytest.raises(UnsupportedOptionError):
            Exchange(heisenberg, **wrong)
    small = Exchange(heisenberg, cutoff=4.9, supercell=(2, 2, 2), magmoms="fixed").run([iron()])[0]
    assert "Take a larger supercell" in small.message

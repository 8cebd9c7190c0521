"""Exchange constants against models whose exchange is known."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.exchange import Exchange
from mmace_sim.properties.exchange.magnons import spin_waves, stiffness
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.structures.spin_lattice import find_pairs, spin_lattice
from mmace_sim.testing import HeisenbergModel, TensorExchangeModel
from mmace_sim.units import BOLTZMANN_EV_PER_K

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
    ("couplings", "more"),
    [
        ({"dmi": (0.004, 0.002)}, {"cutoff": 3.65}),
        ({"anisotropic": 0.006}, {"cutoff": 3.3, "routes": ["derivatives", "four-state"]}),
    ],
    ids=["dmi", "anisotropic"],
)
def test_tensors_with_spin_orbit_coupling(couplings, more):
    model = TensorExchangeModel(exchange=0.03, r_max=3.6, elements=(26, 27), **couplings)
    (result,) = Exchange(model, magmoms="fixed", **more).run([crystal_without_symmetry()])
    assert result.status is Status.CONVERGED, result.message
    known = model.tensor(torch.as_tensor(result.pairs.vectors)).numpy()
    assert result.spin_orbit
    assert np.abs(known[:, 0, 0]).max() > 0.002
    for route in ("derivatives", "four-state"):
        np.testing.assert_allclose(result.tensors[route], known, atol=1e-8, err_msg=route)
    if "routes" not in more:  # spirals see all that is within r_max
        trace = np.trace(known, axis1=1, axis2=2)
        np.testing.assert_allclose(result.isotropic("spirals"), trace / 3, atol=1e-6)
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
    assert stiffness(lattice, pairs, exchange).mean == pytest.approx(energies.mean() / 1e-6, rel=1e-4)


def honeycomb(height=15.0, buckling=0.0, repeat=1):
    a = 3.0
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, height]]
    atoms = Atoms("Fe2", cell=cell, pbc=True, scaled_positions=[[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])
    atoms.positions[1, 2] += buckling
    atoms = atoms.repeat((repeat, 1, 1))
    set_magmoms(atoms, np.full(len(atoms), 2.0))
    return atoms, np.hypot(a / np.sqrt(3), buckling)


@pytest.mark.parametrize("buckling", [0.0, 0.5])
def test_stiffness_of_a_layer_is_that_in_its_plane(buckling):
    """Honeycomb: ħω = (2J'/m) (3 ± |Σ e^{iq·δ}|), so that D = J' a²/(2m) for nearest neighbours, in the plane."""
    atoms, distance = honeycomb(buckling=buckling)
    model = HeisenbergModel(exchange_shells=[(distance, 0.03)], unit_vectors=True)
    (result,) = Exchange(model, cutoff=2.2, routes=["derivatives"], magmoms="fixed").run([atoms])
    known = 0.03 * 3.0**2 / (2 * 2.0)
    assert result.stiffness == pytest.approx(known, rel=1e-9)
    assert result.stiffness_tensor.dimensions == 2
    np.testing.assert_allclose(result.stiffness_tensor.tensor, known * np.diag([1, 1, 0]), atol=1e-9)
    q = 1e-3 * np.array([[1, 0, 0], [0, 1, 0]]) @ result.lattice.cell.T / (2 * np.pi)
    lowest = spin_waves(result.lattice, result.pairs, result.tensors["derivatives"], q)[0][:, 0]
    np.testing.assert_allclose(lowest, known * 1e-6, rtol=1e-4)
    assert "layers only" in result.message


def test_stiffness_of_chains_and_of_an_anisotropic_crystal():
    """D_aa = 2 J'_a a²/m of each axis of an orthorhombic lattice; a chain has one, a pair of spins none."""
    sides, couplings = np.array([2.4, 2.9, 3.5]), np.array([0.03, 0.01, 0.002])
    atoms = Atoms("Fe", cell=sides, pbc=True)
    set_magmoms(atoms, [2.0])
    lattice = spin_lattice(atoms)
    pairs = find_pairs(lattice, 3.6)
    for used in ((0, 1, 2), (0,), (0, 1)):
        exchange = sum(couplings[k] * np.isclose(pairs.distances, sides[k]) for k in used)
        found = stiffness(lattice, pairs, exchange)
        known = [2 * couplings[k] * sides[k] ** 2 / 2.0 if k in used else 0.0 for k in range(3)]
        np.testing.assert_allclose(found.tensor, np.diag(known), atol=1e-12)
        assert found.dimensions == len(used)
        assert found.mean == pytest.approx(sum(known) / len(used))
    lattice = spin_lattice(honeycomb()[0])
    pairs = find_pairs(lattice, 2.2)
    alone = np.where((pairs.shifts == pairs.shifts[0]).all(axis=1), 0.02, 0.0)
    alone = np.maximum(alone, alone[pairs.reverse])
    assert stiffness(lattice, pairs, alone) is None


def test_averages_over_symmetry_that_change_much_are_a_warning(heisenberg, monkeypatch):
    """A model whose energy does not have the symmetry of the crystal: one of the axes counts more."""

    def skewed(graph, edge_vectors=None):
        out = plain(graph, edge_vectors)
        e = graph.magmoms / (graph.magmoms * graph.magmoms).sum(dim=1, keepdim=True).sqrt()
        vectors = graph.edge_vectors()
        along = (vectors[:, 2].abs() > 0.9 * vectors.norm(dim=1)) & (vectors.norm(dim=1) < 1.1 * A)
        i, j = graph.edge_index[1], graph.edge_index[0]
        extra = -0.5 * 0.02 * ((e[i] * e[j]).sum(dim=1) * along).double()
        return out | {"energy": out["energy"].index_add(0, graph.system_idx[i], extra)}

    settings = {"cutoff": CUTOFF, "routes": ["derivatives"], "magmoms": "fixed"}
    assert not Exchange(heisenberg, **settings).run([iron()])[0].breaks_symmetry
    plain = heisenberg.forward
    monkeypatch.setattr(heisenberg, "forward", skewed)
    (result,) = Exchange(heisenberg, **settings).run([iron()])
    assert result.breaks_symmetry
    assert result.spread == pytest.approx(0.02 * 2 / 3, rel=1e-6)
    assert "averaging over symmetry changed exchange by up to 13.3 meV" in result.message


def test_averages_with_unknown_pairs_are_those_of_the_known():
    lattice = spin_lattice(iron())
    pairs = find_pairs(lattice, CUTOFF)
    tensors = np.random.default_rng(0).normal(size=(len(pairs), 3, 3))
    full = pairs.average(tensors, lattice.rotations)
    np.testing.assert_allclose(pairs.average(full, lattice.rotations), full, atol=1e-12)
    first = pairs.representatives()
    sparse = np.full_like(full, np.nan)
    sparse[first[1:]] = full[first[1:]]
    filled = pairs.average(sparse, lattice.rotations)
    known = pairs.orbits != pairs.orbits[first[0]]
    np.testing.assert_allclose(filled[known], full[known], atol=1e-12)
    assert np.isnan(filled[~known]).all()


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
        with pytest.raises(ConfigError):
            Exchange(heisenberg, **wrong)
    small = Exchange(heisenberg, cutoff=4.9, supercell=(2, 2, 2), magmoms="fixed").run([iron()])[0]
    assert "Take a larger supercell" in small.message

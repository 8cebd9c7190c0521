"""The lowest magnetic order of Heisenberg lattices against theory; states that are the same; failures; one batch."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from counting import Counting

from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.properties.order import OrderSearch, OrderStatus
from mmace_sim.properties.order.axes import best_rotation
from mmace_sim.properties.order.plots import FIGURES
from mmace_sim.properties.order.states import keeps_order, same_state, state_fingerprint
from mmace_sim.properties.written import save_figures
from mmace_sim.structures.magnetic_order import MagneticOrder, magnetic_primitive
from mmace_sim.testing import HeisenbergModel

D = 2.5
"""Distance between nearest neighbours, in Å."""

LANDAU = (-0.1, 0.02)
FIXED = {"relax_positions": False, "relax_cell": False, "magforce_tol": 5e-4}

# name: shells as (neighbours, distance)
SHELLS = {
    "square": ((4, D), (4, D * 2**0.5)),
    "triangular": ((6, D), (6, D * 3**0.5)),
    "bcc": ((8, D), (6, D * 2 / 3**0.5)),
    "fcc": ((12, D), (6, D * 2**0.5)),
}


def lattice(name, moment=2.0):
    if name in ("square", "triangular"):
        second = [0, D, 0] if name == "square" else [-D / 2, D * 0.75**0.5, 0]
        atoms = Atoms("Fe", cell=[[D, 0, 0], second, [0, 0, 0]], pbc=(True, True, False))
    else:
        atoms = bulk("Fe", name, a=D * {"bcc": 2 / 3**0.5, "fcc": 2**0.5}[name])
    set_magmoms(atoms, [moment])
    return atoms


def exchange_model(name, j1, j2=0.0):
    # no springs: V = 0, so that only moments count
    shells = [(distance, value) for (_, distance), value in zip(SHELLS[name], (j1, j2), strict=True)]
    return HeisenbergModel(exchange_shells=shells, landau=LANDAU, morse=(0.0, 1.0, D), energy_per_atom=0.0)


def energy(name, j1, j2, cosines):
    """Minimum over the length of E = a m² + b m⁴ − ½ m² Σ z J' c, per atom."""
    a, b = LANDAU
    h = 0.5 * sum(z * j * c for (z, _), j, c in zip(SHELLS[name], (j1, j2), cosines, strict=True))
    return -((h - a) ** 2) / (4 * b)


# mean cosines of the angles to the two shells of neighbours
ORDERS = {
    "square": {"FM": (1, 1), "Néel": (-1, 1), "stripe": (0, -1)},
    "bcc": {"FM": (1, 1), "two sublattices": (-1, 1), "type II": (0, -1)},
    "fcc": {"FM": (1, 1), "type I": (-1 / 3, 1), "type II": (0, -1), "type III": (-1 / 3, 1 / 3)},
}
WAVES = {
    ("square", "Néel"): "1/2 1/2 0", ("square", "stripe"): "0 1/2 0", ("bcc", "two sublattices"): "0 0 1",
    ("bcc", "type II"): "1/2 1/2 1/2", ("fcc", "type I"): "0 0 1", ("fcc", "type II"): "1/2 1/2 1/2",
    ("fcc", "type III"): "0 1/2 1",
}  # fmt: skip
J = 0.01
CASES = [
    ("square", J, 0.2 * J, "FM"),
    ("square", J, -0.4 * J, "FM"),
    ("square", J, -0.6 * J, "stripe"),  # FM to stripe at J2 = −J1/2
    ("square", -J, -0.4 * J, "Néel"),
    ("square", -J, -0.6 * J, "stripe"),  # Néel to stripe at J2/J1 = 1/2
    ("bcc", J, -0.4 * J, "FM"),
    ("bcc", J, -0.8 * J, "type II"),  # at J2 = −2/3 J1
    ("bcc", -J, -0.55 * J, "two sublattices"),
    ("bcc", -J, -0.8 * J, "type II"),  # at J2/J1 = 2/3
    ("fcc", J, -0.5 * J, "FM"),
    ("fcc", -J, 0.3 * J, "type I"),  # to type III at J2 = 0
    ("fcc", -J, -0.3 * J, "type III"),
    ("fcc", -J, -0.7 * J, "type II"),  # at J2/J1 = 1/2
]


def test_phase_diagrams_of_two_shells_in_one_batch_each():
    """The lowest collinear order and its energy on both sides of each boundary of the J1-J2 models."""
    for name, j1, j2, expected in CASES:
        size = 4 if expected in ("type II", "type III") else 2
        search = OrderSearch(exchange_model(name, j1, j2), max_supercell=size, non_magnetic=False, **FIXED)
        (result,) = search.run([lattice(name)])
        assert result.status is OrderStatus.CONVERGED, result.message
        best = result.best
        by_theory = min(ORDERS[name], key=lambda order: energy(name, j1, j2, ORDERS[name][order]))
        assert by_theory == expected
        assert best.energy == pytest.approx(energy(name, j1, j2, ORDERS[name][expected]), abs=1e-6)
        wave = " ".join(map(str, best.start.propagation))
        assert wave == WAVES.get((name, expected), "0 0 0"), (name, j1, j2)
        assert best.energy_above_best == 0
        assert min(order.energy_above_best for order in result.orders) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("settings", [{"random": 4, "seed": 3}, {"spirals": True}])
def test_the_triangular_lattice_finds_its_120_degrees(settings):
    """E = −J' Σ_pairs s·s: 3 pairs per site, cos 120° = −1/2 each, so that E/N = −(3/2) |J'| m²."""
    search = OrderSearch(exchange_model("triangular", -J), max_supercell=3, **settings, **FIXED)
    (result,) = search.run([lattice("triangular")])
    best = result.best
    a, b = LANDAU
    square = np.linalg.norm(best.magmoms, axis=1).mean() ** 2
    assert best.energy == pytest.approx(a * square + b * square**2 - 1.5 * J * square, abs=5e-6)
    assert best.energy == pytest.approx(energy("triangular", -J, 0, (-0.5, 0)), abs=5e-6)
    directions = best.magmoms / np.linalg.norm(best.magmoms, axis=1)[:, None]
    np.testing.assert_allclose(directions @ directions.T, 1.5 * np.eye(3) - 0.5, atol=0.01)
    assert best.order_final is MagneticOrder.NON_COLLINEAR
    stripe = next(order for order in result.orders if order.name == "AFM-1")
    assert stripe.energy == pytest.approx(energy("triangular", -J, 0, (-1 / 3, 0)), abs=1e-6)
    assert stripe.is_kept


def test_the_cell_follows_and_starts_that_meet_are_one_state():
    """A ferromagnet: tilted starts fall into it, straight ones stay where their symmetry keeps them."""
    toy = HeisenbergModel()
    atoms = bulk("Fe", "fcc", a=3.5, cubic=True)
    set_magmoms(atoms, [2.0] * 4)
    straight, tilted = (
        OrderSearch(toy, tilt=tilt, force_tol=1e-3, energy_tol=2e-4).run([atoms])[0] for tilt in (0.0, 20.0)
    )
    assert [order.name for order in straight.states] == ["FM", "AFM-2", "AFM-1", "NM"]
    assert straight.best.energy == pytest.approx(toy.relaxed_energy(12), abs=1e-5)
    assert straight.best.atoms.cell.volume == pytest.approx(2.5**3 / 2**0.5, rel=2e-3)
    assert np.linalg.norm(straight.best.magmoms) == pytest.approx(toy.relaxed_moment(12), abs=2e-3)
    assert all(order.outcome == "" for order in straight.orders)
    assert [order.symmetry.bns_number for order in straight.orders][:2] == ["139.537", "128.410"]
    assert [order.name for order in tilted.states] == ["FM", "NM"]
    assert [order.outcome for order in tilted.orders] == ["", "became FM", "became FM", ""]
    assert tilted.orders[1].symmetry.bns_number == "139.537"


def test_lost_moments_are_told():
    """Without Landau double well, an antiferromagnet in a ferromagnet loses its moments."""
    toy = HeisenbergModel(landau=(0.05, 0.02), exchange=0.03)
    (result,) = OrderSearch(toy, relax_positions=False, relax_cell=False).run([lattice("fcc")])
    assert [order.outcome for order in result.orders] == ["", "became NM", "became NM", ""]
    assert result.orders[1].order_final is MagneticOrder.NON_MAGNETIC


def test_compositions_are_compared_and_failures_are_statuses():
    bcc, fcc = lattice("bcc"), lattice("fcc")
    gold, none = lattice("fcc"), lattice("fcc")
    gold.numbers[:] = 79
    none.arrays.pop("initial_magmoms")
    molecule = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.5]], magmoms=[2, 2])
    search = OrderSearch(HeisenbergModel(), **(FIXED | {"magforce_tol": 1e-3}))
    results = search.run([gold, fcc, none, bcc, molecule])
    assert [r.status for r in results] == ["failed", "converged", "failed", "converged", "converged"]
    assert "4 of 4 starts did not converge: FM failed" in results[0].message
    assert "Au" in results[0].orders[0].message
    assert results[0].best is None
    assert "no magnetic moments" in results[2].message
    assert results[3].best.energy_above_best == 0
    above = results[1].best.energy - results[3].best.energy
    assert results[1].best.energy_above_lowest - results[3].best.energy_above_lowest == pytest.approx(above)
    assert min(results[k].best.energy_above_lowest for k in (1, 3)) == 0
    assert [order.name for order in results[4].orders] == ["FM", "AFM-1", "NM"]
    assert results[4].orders[0].symmetry is None
    short = OrderSearch(HeisenbergModel(), max_steps=2).run([lattice("fcc", 0.5)])[0]
    assert short.status in (OrderStatus.FAILED, OrderStatus.INCOMPLETE)
    assert "FM max_steps" in short.message


def test_all_starts_of_all_structures_are_one_batch():
    model, seen = Counting(HeisenbergModel()), []
    search = OrderSearch(model, magmoms="fixed", relax_positions=False, relax_cell=False)
    results = search.run([lattice("bcc"), lattice("fcc")], on_point=lambda n, total: seen.append((n, total)))
    assert model.n_calls == 1
    assert seen == [(1, 8)] * 8
    assert [order.name for order in results[1].orders] == ["FM", "AFM-1", "AFM-2", "NM"]


def test_an_order_of_the_file_is_one_more_start():
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True)
    set_magmoms(atoms, [[2.0, 0, 0], [0, 0, 2.0]])
    (result,) = OrderSearch(HeisenbergModel(), **FIXED).run([atoms])
    start = next(order for order in result.orders if order.name == "file")
    np.testing.assert_array_equal(get_magmoms(start.start.atoms), get_magmoms(atoms))
    assert start.outcome == "became FM"


def test_fingerprints_know_neither_cell_nor_axes():
    fcc = bulk("Fe", "fcc", a=3.5, cubic=True)
    single = np.array([[0, 0, 2.0], [0, 0, -2.0], [0, 0, -2.0], [0, 0, 2.0]])
    other = np.array([[0, 2.0, 0], [0, 2.0, 0], [0, -2.0, 0], [0, -2.0, 0]])
    triple = 2 / 3**0.5 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    reference = state_fingerprint(fcc, single)
    assert same_state(reference, state_fingerprint(fcc, other))
    assert same_state(reference, state_fingerprint(fcc.repeat((1, 2, 1)), -np.tile(single, (2, 1))))
    # the same correlations of pairs, but not collinear
    assert not same_state(reference, state_fingerprint(fcc, triple))
    assert not same_state(reference, state_fingerprint(fcc, 0.5 * single))
    assert not same_state(reference, state_fingerprint(fcc, np.abs(single)))
    assert keeps_order(single, 0.3 * other[[0, 2, 3, 1]])
    assert not keeps_order(single, np.abs(single))
    assert not keeps_order(single, 0 * single)
    assert keeps_order(0 * single, 0 * single)


def test_moments_are_turned_to_their_most_symmetric_axes():
    rng = np.random.default_rng(0)
    fcc = bulk("Fe", "fcc", a=3.5, cubic=True).repeat((1, 1, 2))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    magmoms = np.tile([[0, 0, 2.0], [0, 0, -2.0], [0, 0, -2.0], [0, 0, 2.0]], (2, 1)) @ turn
    cell, members = magnetic_primitive(fcc, magmoms)
    assert len(cell) == len(members) == 2
    rotation = best_rotation(cell, magmoms[members])
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(np.abs(magmoms @ rotation), np.tile([0, 0, 2.0], (8, 1)), atol=1e-9)


def test_figure(tmp_path):
    (result,) = OrderSearch(HeisenbergModel(), **FIXED).run([lattice("fcc")])
    assert [path.name for path in save_figures(result, tmp_path / "x", FIGURES)] == ["x.png", "x.svg"]
    (failed,) = OrderSearch(HeisenbergModel()).run([Atoms("Fe")])
    assert save_figures(failed, tmp_path / "y", FIGURES) == []


def test_impossible_settings():
    for settings in ({"max_supercell": 0}, {"random": -1}, {"tilt": 90}, {"magmoms": "relaxed"}):
        with pytest.raises(ConfigError):
            OrderSearch(HeisenbergModel(), **settings)

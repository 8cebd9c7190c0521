"""Collinear orders: numbers from the literature and from counting without our shortcuts, names, what is flipped."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from mmace_sim.errors import MissingMomentsError, UnsupportedOptionError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.properties.order.enumeration import enumerate_collinear
from mmace_sim.structures.lattice_points import hermite_normal_forms
from mmace_sim.structures.magnetic_order import MagneticOrder, magnetic_symmetry


def with_moments(atoms, moment=2.5):
    set_magmoms(atoms, np.full(len(atoms), moment))
    return atoms


def lattice(name):
    if name == "square":
        return with_moments(Atoms("Fe", cell=[2.5, 2.5, 0], pbc=(True, True, False)))
    if name == "triangular":
        cell = [[2.5, 0, 0], [-1.25, 2.5 * 0.75**0.5, 0], [0, 0, 0]]
        return with_moments(Atoms("Fe", cell=cell, pbc=(True, True, False)))
    return with_moments(bulk("Fe", name, a=2.5, **({"c": 4.1} if name == "hcp" else {})))


def counts(atoms, max_supercell):
    found = enumerate_collinear(atoms, max_supercell)
    assert found.n_found == len(found.orders)
    return [Counter(order.n_cells for order in found.orders)[n] for n in range(1, max_supercell + 1)]


def brute_force(atoms, n_cells):
    """Orders whose magnetic cell has n cells, counted on the torus of n×n×n cells with the distances between atoms only.

    Every superlattice of index n repeats on that torus. All its isometries come from trying where three cell vectors
    may go; patterns are compared one by one.
    """
    axes = np.flatnonzero(atoms.pbc)
    cell = atoms.cell.complete().array
    sizes = np.where(atoms.pbc, n_cells, 1)
    points = np.array(list(itertools.product(*(range(size) for size in sizes))))
    sites = [(k, tuple(point)) for k in range(len(atoms)) for point in points]
    number = {site: i for i, site in enumerate(sites)}
    scaled = atoms.get_scaled_positions()
    metric = cell @ cell.T
    maps = set()
    turns = np.array(list(itertools.product((-1, 0, 1), repeat=9))).reshape(-1, 3, 3)
    isometric = np.abs(turns @ metric @ turns.transpose(0, 2, 1) - metric).max(axis=(1, 2)) < 1e-6
    straight = (turns[:, ~atoms.pbc] == np.eye(3)[~atoms.pbc]).all(axis=(1, 2))
    for turn in turns[isometric & straight]:
        for target in range(len(atoms)):
            shift = scaled[target] - scaled[0] @ turn
            image = []
            for k, point in sites:
                moved = (scaled[k] + point) @ turn + shift
                hits = [
                    (b, tuple(np.rint(moved - scaled[b]).astype(int) % sizes))
                    for b in range(len(atoms))
                    if np.abs((moved - scaled[b]) - np.rint(moved - scaled[b])).max() < 1e-6
                ]
                image.append(number.get(hits[0]) if hits else None)
            if None not in image:
                maps |= {
                    tuple(number[(sites[i][0], tuple((np.array(sites[i][1]) + t) % sizes))] for i in image)
                    for t in points
                }
    maps = np.array(sorted(maps))
    patterns = set()
    for matrix in hermite_normal_forms(n_cells):
        if not np.array_equal(np.delete(matrix, axes, axis=0), np.delete(np.eye(3), axes, axis=0)):
            continue
        inverse = np.linalg.inv(matrix)
        cells = [tuple(np.round(np.array(point) @ inverse % 1 % (1 - 1e-9), 6)) for point in points]
        names = sorted(set(cells))
        labels = [k * len(names) + names.index(c) for k in range(len(atoms)) for c in cells]
        for signs in itertools.product((1, -1), repeat=len(names) * len(atoms) - 1):
            pattern = np.array((1, *signs))[labels]
            periods = sum(np.array_equal(shifted(pattern, t, sizes, len(atoms)), pattern) for t in points)
            if periods * n_cells == len(points):
                patterns.add(tuple(pattern))
    count = 0
    while patterns:
        pattern = np.array(next(iter(patterns)))
        images = pattern[maps]
        patterns -= set(map(tuple, images)) | set(map(tuple, -images))
        count += 1
    return count


def shifted(pattern, translation, sizes, n_atoms):
    return np.roll(pattern.reshape(n_atoms, *sizes), translation, axis=(1, 2, 3)).ravel()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fcc", [1, 2, 3, 12, 14, 50, 52, 229]),  # Hart and Forcade (2008), table IV, binary alloys
        ("bcc", [1, 2, 3, 12]),
        ("sc", [1, 3, 3, 15]),
        ("square", [1, 2, 2, 7]),
        ("triangular", [1, 1, 2, 5]),
        ("hcp", [2, 7, 30]),
    ],
)
def test_numbers_of_orders(name, expected):
    assert counts(lattice(name), len(expected)) == expected


@pytest.mark.parametrize(
    ("name", "n_cells"),
    [("fcc", 2), ("fcc", 3), ("fcc", 4), ("bcc", 2), ("bcc", 3), ("bcc", 4), ("sc", 2), ("sc", 4), ("square", 4),
     ("triangular", 3), ("triangular", 4), ("hcp", 1), ("hcp", 2)],
)  # fmt: skip
def test_numbers_against_brute_force(name, n_cells):
    assert counts(lattice(name), n_cells)[-1] == brute_force(lattice(name), n_cells)


def test_the_simple_ones_come_first_and_are_named():
    orders = enumerate_collinear(lattice("fcc"), 4).orders
    assert [order.name for order in orders[:4]] == ["FM", "AFM-1", "AFM-2", "AFM-3"]
    half = Fraction(1, 2)
    assert [order.propagation for order in orders[:4]] == [
        (0, 0, 0), (0, 0, 1), (half, half, half), (0, 0, half)
    ]  # fmt: skip
    assert [order.n_cells for order in orders[:4]] == [1, 2, 2, 4]
    assert orders[0].kept_symmetry == 1
    assert orders[1].kept_symmetry == pytest.approx(1 / 3)
    names = [order.name for order in orders]
    assert len(set(names)) == len(names)
    assert all(order.kind is MagneticOrder.AFM for order in orders[1:8])
    assert [order.name for order in orders[8:]] == [f"ferri-{k}" for k in range(1, 11)]
    # the axis of the moments is the one of the tables: layers along [001] with moments along [001]
    assert magnetic_symmetry(orders[1].atoms).bns_number == "128.410"
    assert magnetic_symmetry(enumerate_collinear(lattice("bcc")).orders[0].atoms).bns_number == "139.537"


def test_conventional_cells_and_orders_of_the_file_do_not_matter():
    primitive = enumerate_collinear(lattice("fcc"), 3)
    cubic = bulk("Fe", "fcc", a=2.5, cubic=True)
    set_magmoms(cubic, [2.5, -2.5, 2.5, -1.0])
    again = enumerate_collinear(cubic, 3)
    assert len(again.parent.atoms) == 1
    assert [o.propagation for o in again.orders] == [o.propagation for o in primitive.orders]
    np.testing.assert_allclose(np.linalg.norm(get_magmoms(again.orders[1].atoms), axis=1), 2.5)
    for order in again.orders:
        assert order.atoms.cell.volume == pytest.approx(order.n_cells * 2.5**3 / 4)
        assert order.atoms.get_all_distances(mic=True)[0, 1:].min(initial=2.5) > 1.7


def test_inequivalent_sites_make_ferrimagnets_and_weak_ones_follow():
    spinel = crystal(
        ["Al", "Fe", "O"], [(1 / 8, 1 / 8, 1 / 8), (1 / 2, 1 / 2, 1 / 2), (0.263, 0.263, 0.263)], spacegroup=227,
        cellpar=[8.2] * 3 + [90] * 3, primitive_cell=True,
    )  # fmt: skip
    spinel.symbols[spinel.symbols == "Al"] = "Mn"
    lengths = {"Mn": 3.0, "Fe": 2.0, "O": 0.1}
    set_magmoms(spinel, [lengths[symbol] for symbol in spinel.symbols])
    found = enumerate_collinear(spinel, 1)
    first, second = found.orders[:2]
    assert (first.name, second.name) == ("FM", "ferri-1")
    oxygen = first.atoms.numbers == 8
    assert np.linalg.norm(get_magmoms(first.atoms)[oxygen], axis=1) == pytest.approx(0.1)
    assert not get_magmoms(second.atoms)[oxygen].any()
    assert np.unique(second.signs[second.atoms.symbols == "Mn"]).size == 1
    assert second.signs[second.atoms.symbols == "Mn"][0] == -second.signs[second.atoms.symbols == "Fe"][0]
    assert second.kept_symmetry == 1
    assert found.n_found == len({tuple(order.signs) for order in found.orders})


def test_the_number_is_limited_and_that_is_said():
    found = enumerate_collinear(lattice("bcc"), 4, max_orders=5)
    assert [order.name for order in found.orders] == ["FM", "AFM-1", "AFM-2", "AFM-3", "AFM-4"]
    assert found.n_found == 18
    assert "18 collinear orders, the simplest 5 are taken" in found.note


def test_many_sites_are_flipped_as_a_whole():
    ideal = bulk("NaCl", "rocksalt", a=4.0, cubic=True).repeat(2)
    ideal.symbols = ["Mn" if symbol == "Na" else "Fe" for symbol in ideal.symbols]
    assert [order.name for order in enumerate_collinear(with_moments(ideal), 1).orders] == ["FM", "AFM-1"]
    ideal.positions[0] += 0.3
    found = enumerate_collinear(with_moments(ideal), 1, max_orders=40)
    assert found.note.startswith("more than 16 magnetic sites in 1 primitive cells")
    assert "the simplest 40 are taken" in found.note
    assert found.orders[0].name == "FM"


def test_molecules_have_one_cell():
    dimer = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.0]], magmoms=[2.0, 2.0])
    assert [order.name for order in enumerate_collinear(dimer, 3).orders] == ["FM", "AFM-1"]


def test_impossible_input():
    with pytest.raises(MissingMomentsError):
        enumerate_collinear(Atoms("Fe", cell=[2, 2, 2], pbc=True))
    with pytest.raises(UnsupportedOptionError, match="max_supercell = 0"):
        enumerate_collinear(lattice("sc"), 0)
    nothing = enumerate_collinear(with_moments(lattice("sc"), 0.0))
    assert (nothing.orders, nothing.note) == ([], "no atom has a moment")

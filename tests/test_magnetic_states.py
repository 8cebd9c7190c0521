"""Magnetic states of a crystal in the smallest cell that holds them."""

import numpy as np
import pytest
from ase.build import bulk

from mmace_sim.errors import ConfigError, MissingMomentsError, StructureError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.structures.magnetic_states import magnetic_state


def plain(*args, **kwargs):
    atoms = bulk(*args, **kwargs)
    atoms.arrays.pop("initial_magmoms", None)
    return atoms


def nearest_neighbour_product(atoms, cutoff):
    from matscipy.neighbours import neighbour_list

    i, j = neighbour_list("ij", atoms, cutoff=cutoff)
    signs = np.sign(get_magmoms(atoms)[:, 2])
    return (signs[i] * signs[j]).mean()


def test_states_of_the_bcc_cell():
    iron = plain("Fe", cubic=True)
    moments = {
        name: get_magmoms(magnetic_state(iron, name)[0])[:, 2].tolist()
        for name in ("fm", "fm-ls", "afm", "nm", "afmd")
    }
    assert moments["fm"] == [2.5, 2.5]
    assert moments["fm-ls"] == [1.0, 1.0]
    assert moments["afm"] == [2.5, -2.5]
    assert moments["nm"] == [0.0, 0.0]
    assert moments["afmd"] == [2.5, 2.5, -2.5, -2.5]
    assert iron.arrays.get("initial_magmoms") is None


@pytest.mark.parametrize(
    ("lattice", "a", "cutoff", "product"), [("bcc", 2.87, 2.6, -1.0), ("fcc", 3.6, 2.7, -1 / 3)]
)
def test_primitive_cells_are_doubled_so_that_neighbours_are_opposite(lattice, a, cutoff, product):
    state, note = magnetic_state(plain("Fe", lattice, a=a), "afm")
    assert len(state) == 2
    assert "doubled cell of 2 atoms" in note
    assert get_magmoms(state)[:, 2].sum() == 0
    assert nearest_neighbour_product(state, cutoff) == pytest.approx(product)


def test_double_layers_do_not_care_where_the_cell_begins():
    for shift in (0.0, 0.1, 0.95):
        cell = plain("Fe", "fcc", a=3.6, cubic=True)
        cell.positions[:, 2] += shift * 3.6
        cell.wrap()
        state, note = magnetic_state(cell, "afmd")
        assert len(state) == 8
        assert "8 atoms, 2 times as long" in note
        heights = np.round(state.positions[:, 2] / 1.8 - shift * 2, 6) % 4
        moments = get_magmoms(state)[:, 2]
        layers = {height: set(moments[heights == height]) for height in set(heights)}
        assert all(len(values) == 1 for values in layers.values())
        signs = np.array([layers[height].pop() for height in sorted(layers)])
        assert len(signs) == 4
        assert any(np.array_equal(np.roll(signs, k), [2.5, 2.5, -2.5, -2.5]) for k in range(4))


def test_moments_of_the_file_and_random_ones():
    iron = plain("Fe", cubic=True)
    set_magmoms(iron, [1.0, -1.5])
    assert get_magmoms(magnetic_state(iron, "file")[0])[:, 2].tolist() == [1.0, -1.5]
    random = get_magmoms(magnetic_state(iron, "random:3")[0])
    np.testing.assert_allclose(np.linalg.norm(random, axis=1), 2.5)


def test_impossible_states():
    with pytest.raises(ConfigError, match=r"unknown magnetic state 'afx'; choose from file, fm"):
        magnetic_state(plain("Fe"), "afx")
    with pytest.raises(ConfigError, match="random:x"):
        magnetic_state(plain("Fe"), "random:x")
    with pytest.raises(MissingMomentsError, match="no magnetic moments"):
        magnetic_state(plain("Fe"), "file")
    with pytest.raises(StructureError, match="double layers need a crystal with magnetic atoms, got Al"):
        magnetic_state(plain("Al"), "afmd")
    with pytest.raises(StructureError, match="at least two magnetic atoms"):
        magnetic_state(plain("Al"), "afm")

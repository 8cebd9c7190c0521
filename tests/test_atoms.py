"""Moments on ase.Atoms: where they are read from, written to, and what is refused."""

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from mmace_sim.errors import MissingMomentsError, MomentShapeError, StructureError
from mmace_sim.graph.atoms import get_magmoms, has_magmoms, set_magmoms, widen_collinear

VECTORS = np.array([[0.1, 0.2, 2.3], [0.0, -1.0, 0.5]])


def iron():
    return Atoms("Fe2", positions=[[0, 0, 0], [1.4, 1.4, 1.4]], cell=[2.8] * 3, pbc=True)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_collinear_moments_become_vectors_along_z(shape):
    np.testing.assert_array_equal(
        widen_collinear(np.array([2.0, -1.0]).reshape(shape)), [[0, 0, 2.0], [0, 0, -1.0]]
    )


def test_widening_copies_vectors():
    widened = widen_collinear(VECTORS)
    widened[0, 0] = 9.0
    assert VECTORS[0, 0] == 0.1


@pytest.mark.parametrize(
    "bad", [1.0, np.zeros((2, 2)), np.zeros((2, 3, 1)), [[1.0], [1.0, 2.0]], ["up", "down"]]
)
def test_other_shapes_are_refused(bad):
    with pytest.raises(MomentShapeError, match="n_atoms"):
        widen_collinear(bad)


def test_missing_moments_are_an_error_not_zeros():
    atoms = iron()
    assert not has_magmoms(atoms)
    with pytest.raises(MissingMomentsError, match="Fe2 carries no magnetic moments"):
        get_magmoms(atoms)
    assert not has_magmoms(atoms)


@pytest.mark.parametrize(("default", "z"), [(2.2, [2.2, 2.2]), ([2.0, -2.0], [2.0, -2.0])])
def test_default_replaces_missing_moments_only(default, z):
    atoms = iron()
    np.testing.assert_array_equal(get_magmoms(atoms, default=default)[:, 2], z)
    set_magmoms(atoms, VECTORS)
    np.testing.assert_array_equal(get_magmoms(atoms, default=default), VECTORS)


def test_default_of_wrong_length_is_refused():
    with pytest.raises(MomentShapeError, match="default has shape"):
        get_magmoms(iron(), default=(1.0, 2.0, 3.0))


def test_all_zeros_are_not_missing():
    atoms = iron()
    atoms.set_initial_magnetic_moments([0.0, 0.0])
    assert has_magmoms(atoms)
    np.testing.assert_array_equal(get_magmoms(atoms), np.zeros((2, 3)))


def test_bulk_iron_comes_with_scalar_moments_that_vectors_replace():
    atoms = bulk("Fe", cubic=True)
    np.testing.assert_allclose(get_magmoms(atoms), [[0, 0, 2.3]] * 2)
    with pytest.raises(ValueError, match="wrong shape"):
        atoms.set_initial_magnetic_moments(VECTORS)  # the trap
    set_magmoms(atoms, VECTORS)
    np.testing.assert_array_equal(get_magmoms(atoms), VECTORS)
    set_magmoms(atoms, [1.0, 2.0])
    assert atoms.arrays["initial_magmoms"].shape == (2, 3)


def test_results_of_a_calculator_are_read():
    atoms = iron()
    atoms.calc = SinglePointCalculator(atoms, magmoms=[2.0, -2.0])
    np.testing.assert_array_equal(get_magmoms(atoms)[:, 2], [2.0, -2.0])


def test_initial_moments_win_over_older_results_even_if_zero():
    atoms = iron()
    atoms.calc = SinglePointCalculator(atoms, magmoms=[2.0, -2.0])
    atoms.arrays["REF_magmom"] = VECTORS
    set_magmoms(atoms, np.zeros(2))
    np.testing.assert_array_equal(get_magmoms(atoms), np.zeros((2, 3)))


@pytest.mark.parametrize("name", ["magmoms", "magmom", "REF_magmom", "magnetic_moments"])
def test_further_arrays_are_read(name):
    atoms = iron()
    atoms.arrays[name] = VECTORS
    np.testing.assert_array_equal(get_magmoms(atoms), VECTORS)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((3, 3)), np.zeros((2, 2)), 1.0])
def test_wrong_number_or_shape_is_refused(bad):
    with pytest.raises(MomentShapeError, match="n_atoms, 3"):
        set_magmoms(iron(), bad)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_moments_are_refused(value):
    atoms = iron()
    atoms.arrays["magmoms"] = np.array([1.0, value])
    with pytest.raises(StructureError, match="atom 1 is not finite"):
        get_magmoms(atoms)


def test_vectors_survive_an_extxyz_file():
    atoms = iron()
    set_magmoms(atoms, VECTORS)
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    np.testing.assert_allclose(
        get_magmoms(read(io.StringIO(text.getvalue()), format="extxyz")), VECTORS, atol=1e-8
    )

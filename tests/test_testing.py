"""The test tools themselves: toys give their known answers, and a model that breaks an identity is caught."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from ase.build import bulk
from broken_toys import (
    Broken,
    blow_up,
    bond_axis,
    detached_moments,
    detached_pairs,
    dzyaloshinskii_of_the_vacuum,
    easy_axis_along_z,
    field_along_z,
    jump,
    kink,
    moment_along_bond,
    not_the_reference_energy,
    order_of_atoms,
    other_systems,
    place_in_space,
    size_of_cell,
)
from hypothesis import given
from torch import nn

from mmace_sim.calculator import MMACECalculator
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.testing import (
    IDENTITIES,
    HeisenbergModel,
    MagneticModelConformance,
    assert_model_calculator_consistency,
    magnetic_structures,
    measure_identities,
    random_structure,
)
from mmace_sim.testing.structures import random_rotation


class TestHeisenberg(MagneticModelConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return HeisenbergModel(exchange_decay=1.0)


class TestHeisenbergWithUnitVectors(MagneticModelConformance):
    smooth = False
    tolerances: ClassVar = {"growth_above_max_moment": np.inf}  # zero moments have no direction

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return HeisenbergModel(unit_vectors=True)


class TestHeisenbergWithSpinOrbitCoupling(MagneticModelConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return HeisenbergModel(pseudo_dipolar=0.01)


@pytest.mark.parametrize(
    ("term", "caught_by"),
    [
        (dzyaloshinskii_of_the_vacuum, {"inversion", "spin_rotation"}),
        (moment_along_bond, {"inversion", "time_reversal"}),
        (field_along_z, {"joint_rotation", "time_reversal", "no_field_without_moments", "isolated_atom"}),
        (easy_axis_along_z, {"joint_rotation", "spin_rotation", "isolated_atom"}),
        (bond_axis, {"spin_rotation"}),
        (jump, {"no_jump_at_cutoff"}),
        (kink, {"smooth_through_zero"}),
        (blow_up, {"growth_above_max_moment"}),
        (other_systems, {"batch_equals_single"}),
        (order_of_atoms, {"permutation"}),
        (size_of_cell, {"supercell", "stress"}),
        (place_in_space, {"translation", "forces"}),
        (not_the_reference_energy, {"isolated_atom"}),
        (detached_moments, {"magforces"}),
        (detached_pairs, {"forces", "stress"}),
    ],
)
def test_broken_models_are_caught(term, caught_by):
    violations = measure_identities(Broken(term), names=sorted(caught_by), n_structures=3)
    assert all(violations[name] > IDENTITIES[name].tolerance for name in caught_by)


def test_a_wrong_gradient_in_training_is_caught():
    class Learned(Broken):
        def __init__(self):
            super().__init__(self.half_detached)
            self.weight = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def half_detached(self, graph, _vectors):
            return (0.5 * self.weight + 0.5 * self.weight.detach()) * graph.magmoms.square().sum(1)

    assert (
        measure_identities(Learned(), names=["training_gradient"], n_structures=1)["training_gradient"] > 0.1
    )


def test_measured_identities_of_the_toy():
    violations = measure_identities(HeisenbergModel(), n_structures=2)
    assert set(violations) == set(IDENTITIES) - {"training_gradient"}  # the toy has no weights
    assert all(value <= IDENTITIES[name].tolerance for name, value in violations.items())
    assert "spin_rotation" not in measure_identities(
        HeisenbergModel(pseudo_dipolar=0.1), names=["inversion", "spin_rotation"]
    )


@given(atoms=magnetic_structures(elements=(26, 13), min_atoms=2, max_atoms=6, max_moment=2.0))
def test_strategy_draws_usable_structures(atoms):
    distances = atoms.get_all_distances(mic=True)
    assert distances[~np.eye(len(atoms), dtype=bool)].min() > 1.0
    assert np.linalg.norm(get_magmoms(atoms), axis=1).max() <= 2.0
    assert atoms.pbc.all()
    assert set(atoms.numbers) <= {26, 13}


@pytest.mark.parametrize("improper", [False, True])
def test_random_rotations(improper):
    rotation = random_rotation(np.random.default_rng(0), improper=improper)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(rotation) == pytest.approx(-1 if improper else 1)


@pytest.mark.parametrize("unit_vectors", [False, True])
def test_exchange_of_a_flipped_spin(unit_vectors):
    """Flipping one spin of a ferromagnet costs 2 z J', z = 12 nearest neighbours (DESIGN §7)."""
    toy = HeisenbergModel(exchange=0.02, unit_vectors=unit_vectors)
    atoms = bulk("Fe", "fcc", a=2.5 * 2**0.5, cubic=True).repeat(2)
    moments = np.full(len(atoms), 2.0)
    atoms.calc = MMACECalculator(toy)
    set_magmoms(atoms, moments)
    ferromagnet = atoms.get_potential_energy()
    moments[5] *= -1
    set_magmoms(atoms, moments)
    scale = 1.0 if unit_vectors else 4.0
    assert atoms.get_potential_energy() - ferromagnet == pytest.approx(2 * 12 * 0.02 * scale, rel=1e-10)


@pytest.mark.parametrize("unit_vectors", [False, True])
def test_relaxed_state_of_the_toy(unit_vectors):
    toy = HeisenbergModel(unit_vectors=unit_vectors)
    moment = toy.relaxed_moment(12)
    atoms = bulk("Fe", "fcc", a=2.5 * 2**0.5)
    set_magmoms(atoms, [[moment, 0, 0]])
    atoms.calc = MMACECalculator(toy)
    assert atoms.get_potential_energy() == pytest.approx(toy.relaxed_energy(12), rel=1e-12)
    assert np.abs(atoms.calc.get_property("magforces", atoms)).max() < 1e-12
    assert np.abs(atoms.get_stress()).max() < 1e-12


def test_consistency_notices_forgotten_moments():
    from mmace_sim.torchsim import MagneticMaceModel

    toy = HeisenbergModel()
    structures = [random_structure(np.random.default_rng(seed), n_atoms=n) for seed, n in ((0, 1), (1, 3))]
    assert_model_calculator_consistency(MagneticMaceModel(toy), MMACECalculator(toy), structures)

    class Forgetful(MagneticMaceModel):
        def forward(self, state, **kwargs):
            return super().forward(state, **kwargs) | {"magforces": torch.zeros_like(state.positions)}

    with pytest.raises(AssertionError, match="magforces of structure 0"):
        assert_model_calculator_consistency(Forgetful(toy), MMACECalculator(toy), structures)

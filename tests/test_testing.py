"""The test tools themselves: toys give their known answers, and a model that breaks an identity is caught."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from ase.build import bulk
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


class Broken(nn.Module):
    """A toy plus one term that breaks something."""

    def __init__(self, term, **attributes):
        super().__init__()
        self.toy, self.term = HeisenbergModel(), term
        self.elements, self.r_max, self.spin_orbit, self.device = [26], self.toy.r_max, False, self.toy.device
        self.energy_per_atom = self.toy.energy_per_atom
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, graph, edge_vectors=None):
        vectors = graph.edge_vectors() if edge_vectors is None else edge_vectors
        out = self.toy(graph, vectors)
        extra = self.term(graph, vectors)
        energy = out["energy"].index_add(0, graph.system_idx, extra)
        return {"energy": energy, "node_energy": out["node_energy"] + extra}


def per_atom(graph, pair_energy):
    return torch.zeros_like(graph.magmoms[:, 0]).index_add(0, graph.edge_index[1], pair_energy)


def smooth_cutoff(vectors, r_max=3.4):
    return (1 - vectors.norm(dim=1) / r_max).clamp(min=0) ** 4


def moment_along_bond(graph, vectors):
    """Polar m: even under time reversal only in pairs, odd under inversion."""
    sender, receiver = graph.edge_index
    weight = smooth_cutoff(vectors)
    return per_atom(
        graph, weight * (graph.magmoms[receiver] * vectors).sum(1) * graph.magmoms[sender].square().sum(1)
    )


def dzyaloshinskii_of_the_vacuum(graph, vectors):
    """m_i × m_j · r_ij: invariant under rotations and time reversal, but not under inversion."""
    sender, receiver = graph.edge_index
    cross = torch.linalg.cross(graph.magmoms[receiver], graph.magmoms[sender])
    return per_atom(graph, smooth_cutoff(vectors) * (cross * vectors).sum(1))


def field_along_z(graph, _vectors):
    return 0.1 * graph.magmoms[:, 2]


def easy_axis_along_z(graph, _vectors):
    return -0.1 * graph.magmoms[:, 2] ** 2


def bond_axis(graph, vectors):
    """A spin–orbit term in a model that says it has none."""
    receiver = graph.edge_index[1]
    return per_atom(graph, smooth_cutoff(vectors) * (graph.magmoms[receiver] * vectors).sum(1) ** 2)


def jump(graph, vectors):
    return per_atom(graph, 0.01 * torch.exp(-vectors.norm(dim=1)))


def kink(graph, _vectors):
    return 0.1 * graph.magmoms.norm(dim=1)


def blow_up(graph, vectors):
    """A polynomial outside of the range that it was made for, as upstream's Chebyshev basis."""
    receiver = graph.edge_index[1]
    return per_atom(graph, smooth_cutoff(vectors) * (graph.magmoms[receiver].square().sum(1) / 9.0) ** 6)


def other_systems(graph, _vectors):
    return torch.full_like(graph.magmoms[:, 0], 1e-4) * graph.n_systems


def order_of_atoms(graph, _vectors):
    return 0.1 * torch.arange(graph.n_atoms) * graph.magmoms.square().sum(1)


def size_of_cell(graph, _vectors):
    return torch.full_like(graph.magmoms[:, 0], 0.1) * torch.linalg.det(graph.cell)[graph.system_idx]


def place_in_space(graph, _vectors):
    return 0.1 * graph.positions[:, 0]


def not_the_reference_energy(graph, _vectors):
    return torch.full_like(graph.magmoms[:, 0], 0.1)


def detached_moments(graph, _vectors):
    return graph.magmoms.detach().square().sum(1)


def detached_pairs(graph, vectors):
    return per_atom(graph, smooth_cutoff(vectors.detach()))


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

"""The last act of a training: models that must not be used are found, however good their errors are."""

import warnings

import numpy as np
import pytest
import torch
from ase.build import bulk
from embedded import BOTH

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.nn.moments import moment_basis
from mmace_sim.quality.stability import LEAST_FALL, check_stability


def crystals(n=3):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        atoms = bulk("Fe", "bcc", a=2.83, cubic=True)
        atoms.rattle(0.05, rng=rng)
        set_magmoms(atoms, np.array([[0, 0, 2.0], [0, 0, 2.1]]))
        found.append(atoms)
    return found


def toy(**options):
    """A model with small random weights, whose data span 0.4 eV/atom."""
    torch.manual_seed(0)
    config = ModelConfig(atomic_numbers=[26], max_moment={26: 2.5}, r_max=3.5, hidden_irreps="4x0e", radial_mlp=[8],
                         max_ell=1, MLP_irreps="4x0e", spin_channels=2, spin_max_ell=1, num_interactions=1, **options)  # fmt: skip
    model = MagneticMACE(config).requires_grad_(requires_grad=False)
    model.scale.fill_(0.05)
    model.metadata["data_range"] = {
        "interaction_energy_per_atom": [-0.3, 0.1],
        "shortest_distances": {"Fe-Fe": 2.3},
        "volume_per_atom": [10.0, 14.0],
        "largest_moments": {"Fe": 2.5},
    }
    return model


def verdict(model, structures=None):
    return check_stability(
        {"default": model}, {"default": crystals() if structures is None else structures}, seconds=5
    )


@pytest.mark.parametrize("name", BOTH)
def test_embedded_models_pass(name):
    report = verdict(load_model(name))
    assert report.passed, report.message
    assert 1 <= report.n_relaxed <= 3  # as many as the time allows
    assert 0.0 < report.largest_fall < LEAST_FALL
    assert report.as_dict()["passed"] is True


def test_a_network_that_nothing_holds_is_found():
    """Without repulsion and floor a network of either sign falls where atoms are close; with them it cannot."""
    found = []
    for scale in (1e4, -1e4):
        model = toy()
        model.scale.fill_(scale)
        found.append("random structures with short distances" in verdict(model, []).message)
        held = toy(repulsion={"Fe-Fe": 2.3}, energy_floor={26: -0.4}, max_crowding={26: 15.0})
        held.scale.fill_(scale)
        assert "short distances" not in verdict(held, []).message
    assert any(found)


def test_a_well_of_a_moment_is_found():
    """As of germanium at 1 μB: within the wall, and beyond the data."""
    model = toy(repulsion={"Fe-Fe": 2.3}, energy_floor={26: -0.4})
    well = -4.0 / moment_basis(torch.tensor([[0.0, 0.0, 1.0]]).double(), 6)[0]
    model.reference.one_body[0, 0] = well[0]
    structures = crystals()
    for atoms in structures:
        set_magmoms(atoms, np.full((2, 3), 0.1))
    report = verdict(model, structures)
    assert not report.passed
    assert "of its own data falls by" in report.message
    assert report.largest_fall > 1.0


def test_violated_identities_are_found():
    class Chiral(MagneticMACE):
        def network(self, graph, vectors, species):
            return super().network(graph, vectors, species) + graph.magmoms[:, 2]

    model = toy(repulsion={"Fe-Fe": 2.3}, energy_floor={26: -0.4})
    model.__class__ = Chiral
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = verdict(model, [])
    assert '"E(r, −m) = E(r, m)" is violated' in report.message


def test_a_model_that_says_nothing_of_its_data_is_not_judged_by_them():
    model = toy()
    model.metadata.clear()
    report = verdict(model)
    assert report.n_relaxed == 0
    assert report.passed


@pytest.mark.parametrize("seconds", [1e-9, 0.2])
def test_it_costs_no_more_than_it_may(seconds):
    """One structure and few steps at least."""
    report = check_stability({"default": toy(repulsion={})}, {"default": crystals(10)}, seconds=seconds)
    assert 1 <= report.n_relaxed <= 10

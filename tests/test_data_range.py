"""What a model's metadata say about the range of its data, and what happens if they say nothing."""

import pytest

from mmace_sim.model.config import ModelConfig, pair_name
from mmace_sim.model.data_range import data_range, interaction_energy_per_atom
from mmace_sim.model.magnetic_mace import MagneticMACE

RANGE = {
    "interaction_energy_per_atom": [-4.0, -1.0],
    "shortest_distances": {"Fe-Fe": 2.2},
    "volume_per_atom": [8.0, 14.0],
    "largest_moments": {"Fe": 3.0},
}


def tiny(**fields):
    return MagneticMACE(ModelConfig(atomic_numbers=[26, 32], hidden_irreps="2x0e", radial_mlp=[4], **fields))


def test_plain_and_per_head():
    model = tiny(heads={"a": {}, "b": {}})
    model.metadata = {"data_range": {"a": RANGE, "b": {**RANGE, "volume_per_atom": None}}}
    found = data_range(model)
    assert found.interaction_energy_per_atom == (-4.0, -1.0)
    assert found.energy_width == 3.0
    assert found.volume_per_atom == (8.0, 14.0)
    model.metadata = {"data_range": RANGE}
    assert data_range(model) == found


@pytest.mark.parametrize(
    "told", [None, [], "x", {}, {"a": 1}, {**RANGE, "volume_per_atom": [float("nan"), 1]}]
)
def test_absent_or_broken_metadata_say_nothing(told):
    model = tiny()
    model.metadata = {} if told is None else {"data_range": told}
    assert data_range(model) is None


def test_interaction_energy_is_measured_from_isolated_atoms():
    model = tiny(heads={"a": {}, "b": {}})
    model.reference.atomic_energies[:] = model.reference.atomic_energies.new_tensor(
        [-1.0, -2.0, -10.0, -20.0]
    )
    assert interaction_energy_per_atom(model, -6.0, [26, 32]) == -1.5
    assert interaction_energy_per_atom(model, -36.0, [26, 32], head="b") == -3.0


def test_pair_names_are_alphabetical():
    assert pair_name(26, 13) == pair_name("Al", "Fe") == "Al-Fe"

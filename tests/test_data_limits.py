"""Where the data end: what train finds in them, and what its model does beyond."""

import pytest
import torch
from ase.io import write
from ase.neighborlist import neighbor_list
from training_toys import TINY_MODEL, toy_frames

from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.data_range import data_range, interaction_energy_per_atom
from mmace_sim.nn.repulsion import FLOOR_WIDTH
from mmace_sim.training.config import load_train_config
from mmace_sim.training.data.limits import lower_onsets
from mmace_sim.training.trainer import prepare, train


def config_for(tmp_path, frames, model=None, **data):
    write(tmp_path / "toys.extxyz", frames, format="extxyz")
    settings = {"max_epochs": 1, "batch_size": 8, "device": "cpu", "dtype": "float32", "figures": False}
    data = {"train_file": str(tmp_path / "toys.extxyz"), "valid_fraction": 0.3, **data}
    return load_train_config(
        None, {"data": data, "model": TINY_MODEL if model is None else model, "trainer": settings}
    )


def test_a_trained_model_knows_where_its_data_end(tmp_path):
    frames = toy_frames(12)
    (tmp_path / "run").mkdir()
    train(config_for(tmp_path, frames), tmp_path / "run")
    distances = [neighbor_list("d", atoms, 3.2).min() for atoms in frames]
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.config.repulsion["Fe-Fe"] == pytest.approx(min(distances), abs=1.1e-3)
    told = data_range(model)
    low, high = told.interaction_energy_per_atom
    used = [a for a in frames if low - 1e-9 <= interaction_energy_per_atom(
        model, a.info["REF_energy"], a.numbers.tolist()) <= high + 1e-9]  # fmt: skip
    assert len(used) >= 6
    assert (
        min(distances) - 1e-6 <= told.shortest_distances["Fe-Fe"] == pytest.approx(min(distances), abs=0.05)
    )
    assert 8 < told.volume_per_atom[0] < told.volume_per_atom[1] < 15
    graph = graph_from_atoms(frames, 3.2)
    free = type(model)(model.config.model_copy(update={"repulsion": None}))
    free.load_state_dict(model.state_dict())
    torch.testing.assert_close(free(graph)["energy"], model(graph)["energy"], rtol=0, atol=0)
    close = frames[0].copy()
    close.set_cell(close.cell * 0.3, scale_atoms=True)
    floor = float(model.reference.atomic_energies) + model.config.energy_floor[26] - 0.5 * FLOOR_WIDTH
    assert float(model(graph_from_atoms(close, 3.2))["energy"]) / 2 > floor + 100


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({**TINY_MODEL, "repulsion": None}, None),
        ({**TINY_MODEL, "repulsion": {"Fe-Fe": 1.5}}, {"Fe-Fe": 1.5}),
        ({"architecture": "PaperMMACE", "hidden_irreps": "4x0e", "num_interactions": 1, "r_max": 3.2}, None),
    ],
)
def test_what_the_configuration_says_counts(tmp_path, section, expected):
    model = prepare(config_for(tmp_path, toy_frames(12), section)).model
    assert model.config.repulsion == expected
    assert (model.short_range is None) == (expected is None)


def test_other_architectures_have_a_repulsion_if_asked(tmp_path):
    section = {"architecture": "PaperMMACE", "hidden_irreps": "4x0e", "num_interactions": 1, "r_max": 3.2}
    run = prepare(config_for(tmp_path, toy_frames(12), {**section, "repulsion": {}}))
    assert 2.0 < run.model.config.repulsion["Fe-Fe"] < 2.6
    again = prepare(run.config)
    assert again.model.config == run.model.config


def test_going_on_with_shorter_distances_lowers_onsets(tmp_path):
    assert lower_onsets({"Fe-Fe": 2.2, "Al-Fe": 2.0}, {"Fe-Fe": 2.3, "Al-Fe": 1.9, "Al-Al": 2.5}) == {
        "Fe-Fe": 2.2, "Al-Fe": 1.9, "Al-Al": 2.5,
    }  # fmt: skip
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    frames = toy_frames(12)
    first = train(config_for(tmp_path, frames), tmp_path / "first").model
    for atoms in frames:
        atoms.set_cell(atoms.cell * 0.9, scale_atoms=True)
    config = config_for(tmp_path, frames, {"start_from": str(tmp_path / "first" / "model.safetensors")})
    second = train(config, tmp_path / "second").model
    assert second.config.repulsion["Fe-Fe"] == pytest.approx(0.9 * first.config.repulsion["Fe-Fe"], rel=0.02)
    assert second.config.energy_floor[26] <= first.config.energy_floor[26]

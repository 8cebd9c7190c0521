"""The wall of each element begins where its data end, and E1 holds moments that the data do not know."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.io import write
from training_toys import TINY_MODEL, toy_frames

from mmace_sim.errors import ConfigError
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.checkpoint import load_model, read_metadata, save_model
from mmace_sim.model.config import SMALL_MOMENT
from mmace_sim.training.config import load_train_config
from mmace_sim.training.trainer import prepare


def config_for(tmp_path, second, *, magforces=True, model=TINY_MODEL):
    """Iron and germanium, whose moments are `second` times a random number; energies depend on nothing of it."""
    rng = np.random.default_rng(0)
    frames = toy_frames(30)
    for atoms in frames:
        atoms.numbers[1] = 32
        atoms.info["REF_energy"] += 0.5 * rng.normal()  # noise that a fit could put into moments of germanium
        atoms.arrays["REF_magmom"][1] = second * rng.uniform(-1, 1, size=3)
        if not magforces:
            del atoms.arrays["REF_magforces"]
    write(tmp_path / "toys.extxyz", frames, format="extxyz")
    settings = {"max_epochs": 1, "batch_size": 8, "device": "cpu", "dtype": "float64", "figures": False}
    data = {"train_file": str(tmp_path / "toys.extxyz"), "valid_fraction": 0.2}
    loss = {"magforce_elements": ["Fe"]} if magforces else {}
    return load_train_config(None, {"data": data, "model": model, "trainer": settings, "loss": loss})


def energies(model, lengths):
    """Energy of a pair of iron and germanium over the moment of germanium."""
    atoms = toy_frames(1)[0]
    atoms.numbers[1] = 32
    graph = graph_from_atoms(atoms, model.r_max)
    values = []
    for length in lengths:
        magmoms = graph.magmoms.clone()
        magmoms[1] = torch.tensor([0.6, 0.0, 0.8]) * length
        values.append(float(model(replace(graph, magmoms=magmoms))["energy"].detach()))
    return np.array(values) - values[0]


@pytest.mark.parametrize("magforces", [True, False])
@pytest.mark.parametrize("second", [0.0, 0.018, 0.1])
def test_an_element_without_moments_keeps_none(tmp_path, second, magforces):
    """A weak spring up to the wall at 0.2 μB, whatever the noise of the energies and the random network say."""
    model = prepare(config_for(tmp_path, second / 3**0.5, magforces=magforces)).model.eval()
    assert model.config.nonmagnetic == [32]
    lengths = np.array([0.0, 0.01, 0.05, 0.1, 0.15, 0.24, 1.0, 5.0])
    found = energies(model, lengths)
    assert found[:4] == pytest.approx(lengths[:4] ** 2, rel=0.1)
    assert found[4] == pytest.approx(0.15**2, rel=0.5)
    assert (np.diff(found) >= 0).all()
    assert found[5] > 1.0
    path = save_model(model, tmp_path / "model.safetensors")
    assert read_metadata(path)["format_version"] == 3
    assert energies(load_model(path), lengths) == pytest.approx(found)


@pytest.mark.parametrize("magforces", [True, False])
def test_the_wall_of_small_moments_begins_where_they_end(tmp_path, magforces):
    model = prepare(config_for(tmp_path, 0.2, magforces=magforces)).model.eval()
    assert model.config.nonmagnetic == []
    largest = model.config.max_moment[32]
    assert SMALL_MOMENT < largest < 0.36
    wall = model.reference.wall(
        torch.tensor([[largest, 0, 0], [1.4 * largest, 0, 0]]).double(), torch.tensor([1, 1])
    )
    assert float(wall[0]) == pytest.approx(0.0, abs=1e-15)
    assert wall[1] > 10
    assert energies(model, [0.0, 2.0 * largest, 10 * largest])[1:].min() > 100


def test_an_element_whose_moments_were_held_cannot_be_called_nonmagnetic(tmp_path):
    section = {**TINY_MODEL, "nonmagnetic": ["Ge"]}
    assert prepare(config_for(tmp_path, 0.1 / 3**0.5, model=section)).model.config.nonmagnetic == [32]
    config = config_for(tmp_path, 0.2, model=section)
    config.loss.magforce_elements = None
    with pytest.raises(ConfigError, match=r"nonmagnetic names Ge \(up to 0\.\d\d μB\), but magnetic forces"):
        prepare(config)


def test_moments_that_only_follow_are_not_seen_and_cost_next_to_nothing(tmp_path):
    """Of oxygen between iron, say: energies at the moments of the data and at none are nearly one."""
    model = prepare(config_for(tmp_path, 0.2, model={**TINY_MODEL, "nonmagnetic": ["Ge"]})).model.eval()
    wall = model.config.max_moment[32]
    assert 0.2 < wall / 2 < 0.36
    lengths = np.array([0.0, 0.1, wall / 2, wall, 1.2 * wall])
    found = energies(model, lengths)
    assert found[:4] == pytest.approx(0.05 * lengths[:4] ** 2, rel=0.1)
    assert found[4] > 1.0


def test_a_model_that_says_otherwise_is_obeyed(tmp_path):
    model = prepare(
        config_for(tmp_path, 0.01, model={**TINY_MODEL, "max_moment": {"Fe": 4.0, "Ge": 1.0}})
    ).model
    assert model.config.nonmagnetic == []
    assert model.max_moment.tolist() == [4.0, 1.0]


def test_the_architecture_of_the_paper_has_its_wall_there_too(tmp_path):
    section = {
        "architecture": "PaperMMACE",
        "hidden_irreps": "4x0e",
        "num_interactions": 1,
        "r_max": 3.2,
        "saturate": True,
    }
    model = prepare(config_for(tmp_path, 0.01, model=section)).model
    assert model.max_moment.tolist()[1] == SMALL_MOMENT


def test_moments_that_follow_have_room_in_every_head(tmp_path):
    config = config_for(tmp_path, 0.2, model={**TINY_MODEL, "nonmagnetic": ["Ge"]})
    file = {"train_file": config.data.train_file, "valid_fraction": 0.2}
    rng = np.random.default_rng(1)
    frames = toy_frames(30, seed=1)
    for atoms in frames:
        atoms.numbers[1] = 32
        atoms.arrays["REF_magmom"][1] = 0.05 * rng.uniform(-1, 1, size=3)
    write(tmp_path / "small.extxyz", frames, format="extxyz")
    heads = {"a": file, "b": {"train_file": str(tmp_path / "small.extxyz"), "valid_fraction": 0.2}}
    section = {**TINY_MODEL, "nonmagnetic": ["Ge"]}
    settings = {"max_epochs": 1, "device": "cpu", "dtype": "float64", "figures": False}
    loss = {"magforce_elements": ["Fe"]}
    both = {"data": {"heads": heads}, "model": section, "trainer": settings, "loss": loss}
    reference = prepare(load_train_config(None, both)).model.reference
    assert reference.wall_moment[1] == reference.wall_moment[3] > 0.4
    assert reference.one_body[1].tolist() == pytest.approx(reference.one_body[3].tolist())

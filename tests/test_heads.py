"""Heads: one network, for each data set its own energies of isolated atoms, and a file that says so."""

from dataclasses import replace

import pytest
import torch
from ase.build import bulk
from embedded import BOTH

from mmace_sim.architectures.paper_mmace import PaperConfig, PaperMMACE
from mmace_sim.errors import ModelFileError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.checkpoint import load_all_heads, load_model, read_metadata, save_model
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.heads import with_heads
from mmace_sim.model.magnetic_mace import MagneticMACE

TINY = {"hidden_irreps": "4x0e", "radial_mlp": [8], "r_max": 3.5, "max_ell": 2, "num_interactions": 1}


def two_heads(model_class=MagneticMACE):
    torch.manual_seed(0)
    extra = {"spin_channels": 4} if model_class is MagneticMACE else {"saturate": True}
    config = ModelConfig if model_class is MagneticMACE else PaperConfig
    model = model_class(
        config(
            atomic_numbers=["Fe", "Al"],
            max_moment={"Fe": 3.0},
            heads={"bcc": {}, "fcc": {"Fe": 2.0}},
            **TINY,
            **extra,
        )
    )
    model.reference.atomic_energies.copy_(torch.tensor([-50.0, -3000.0, -2.0, -8.0]))
    model.reference.one_body.normal_(std=0.1)
    return model


@pytest.fixture
def images():
    images = [bulk("Fe", cubic=True), bulk("Fe", "fcc", a=3.6)]
    set_magmoms(images[0], [[0.3, 0.1, 2.0], [0.0, 0.5, 1.9]])
    set_magmoms(images[1], [[0.0, 0.0, 2.3]])
    return images


@pytest.mark.parametrize("model_class", [MagneticMACE, PaperMMACE])
def test_each_structure_of_a_batch_gets_the_energy_of_its_head(model_class, images, tmp_path):
    model = two_heads(model_class)
    path = save_model(model, tmp_path / "two.safetensors")
    graph = graph_from_atoms(images, model.r_max)
    together = evaluate(model, replace(graph, head_idx=torch.tensor([0, 1])))
    for name, image, energy in zip(["bcc", "fcc"], images, together["energy"], strict=True):
        single = load_model(path, head=name)
        assert single.heads == [name]
        alone = evaluate(single, graph_from_atoms(image, model.r_max))
        assert alone["energy"].item() == pytest.approx(energy.item(), rel=1e-14)
    apart = torch.cat(
        [
            evaluate(load_model(f"{path}#{name}"), graph_from_atoms(image, model.r_max))["magforces"]
            for name, image in zip(["bcc", "fcc"], images, strict=True)
        ]
    )
    assert torch.allclose(apart, together["magforces"], rtol=1e-12, atol=1e-13)


def test_the_wall_of_a_head_stands_at_its_own_largest_moment():
    model = two_heads()
    species = torch.tensor([1, 3])  # iron of either head
    wall = model.reference.wall(torch.tensor([[0.0, 0.0, 2.3]] * 2, dtype=torch.float64), species)
    assert wall[0] == 0
    assert wall[1].item() == pytest.approx(20 * (2.3**2 / 4 - 1) ** 3)


def test_a_head_has_to_be_chosen(tmp_path):
    model = two_heads()
    path = save_model(model, tmp_path / "two.safetensors")
    with pytest.raises(ModelFileError, match=r"several data sets.*heads bcc, fcc as in two\.safetensors#bcc"):
        load_model(path)
    with pytest.raises(ModelFileError, match=r"no head 'hcp'.*bcc, fcc"):
        load_model(f"{path}#hcp")
    assert load_all_heads(path).heads == ["bcc", "fcc"]
    both = save_model(with_heads(model, {"replay": "bcc", "default": "fcc"}), tmp_path / "both.safetensors")
    assert load_model(both).heads == ["default"]
    header = read_metadata(f"{path}#bcc")
    assert header["config"]["heads"] == {"bcc": {}, "fcc": {"26": 2.0}}
    assert header["format_version"] == 2
    header = read_metadata(save_model(with_heads(model, {"default": "bcc"}), path))
    assert header["format_version"] == 1  # older versions read a file without heads
    assert "heads" not in header["config"]


@pytest.mark.parametrize("name", BOTH)
def test_files_without_heads_have_one(name):
    model = load_model(name)
    assert model.heads == ["default"]
    assert "heads" not in read_metadata(name)["config"]  # as files of older versions
    with pytest.raises(ModelFileError, match="no head 'fcc'"):
        load_model(f"{name}#fcc")


def test_copies_with_other_heads_start_from_the_old_ones(images):
    model = two_heads()
    copy = with_heads(model, {"new": "fcc", "old": "bcc", "bcc": "bcc"})
    graph = graph_from_atoms(images[0], model.r_max)
    for head, old in enumerate([1, 0, 0]):
        energy = copy(replace(graph, head_idx=torch.tensor([head])))["energy"]
        assert energy == model(replace(graph, head_idx=torch.tensor([old])))["energy"]
    with pytest.raises(ModelFileError, match="no head 'hcp'"):
        with_heads(model, {"new": "hcp"})


@pytest.mark.parametrize("name", ["", "a#b", "a/b"])
def test_heads_have_plain_names(name):
    with pytest.raises(ValueError, match="name that is not made of letters"):
        ModelConfig(atomic_numbers=[26], heads={name: {}})

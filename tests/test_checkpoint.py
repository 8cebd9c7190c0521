"""The model file: faithful, and clear about everything that is wrong with one."""

import json

import pytest
import torch
from ase.build import bulk
from safetensors import safe_open
from safetensors.torch import save_file

from mmace_sim.errors import ModelFileError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.checkpoint import load_model, read_metadata, save_model
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.model.registry import list_models


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = ModelConfig(
        atomic_numbers=["Fe", "Al"],
        hidden_irreps="4x0e",
        radial_mlp=[8],
        spin_channels=4,
        max_moment={"Fe": 3.0},
        spin_orbit=True,
        r_max=3.5,
    )
    model = MagneticMACE(config).double()
    model.reference.atomic_energies.copy_(torch.tensor([-53.2, -3386.123456789]))
    model.metadata = {"name": "tiny", "license": "MIT"}
    return model


@pytest.fixture
def atoms():
    atoms = bulk("Fe", cubic=True)
    set_magmoms(atoms, [[0.3, 0.1, 2.0], [0.0, 0.5, 1.9]])
    return atoms


def test_round_trip_keeps_every_number(model, atoms, tmp_path):
    path = save_model(model, tmp_path / "tiny.safetensors")
    loaded = load_model(path)
    graph = graph_from_atoms(atoms, model.r_max)
    before, after = evaluate(model, graph), evaluate(loaded, graph)
    assert all(torch.allclose(before[key], after[key], rtol=1e-13, atol=1e-14) for key in before)
    assert loaded.metadata["name"] == "tiny"
    assert read_metadata(path)["config"]["atomic_numbers"] == [13, 26]


def test_float32_keeps_all_electron_totals(model, atoms, tmp_path):
    loaded = load_model(save_model(model, tmp_path / "tiny.safetensors"), dtype=torch.float32)
    exact = evaluate(model, graph_from_atoms(atoms, 3.5))
    single = evaluate(loaded, graph_from_atoms(atoms, 3.5, dtype=torch.float32))
    assert single["energy"].dtype == torch.float64
    assert abs(single["energy"] - exact["energy"]).item() < 1e-5
    assert single["forces"].dtype == torch.float32
    assert abs(single["magforces"] - exact["magforces"]).max().item() < 1e-4


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelFileError, match=r"no model 'nonsense'.*default.*mmace-sim models"):
        load_model("nonsense")
    assert "default" in list_models()


def test_truncated_file(model, tmp_path):
    path = save_model(model, tmp_path / "tiny.safetensors")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelFileError, match=r"tiny\.safetensors.*truncated"):
        load_model(path)


def test_text_file_is_not_a_model(tmp_path):
    path = tmp_path / "README.safetensors"
    path.write_text("not a model")
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        load_model(path)


def test_foreign_safetensors_file(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ModelFileError, match="not one of mmace_sim"):
        load_model(path)


def rewrite(path, change):
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["mmace_sim"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, metadata={"mmace_sim": json.dumps(header)})


def test_newer_format_asks_for_an_upgrade(model, tmp_path):
    path = save_model(model, tmp_path / "tiny.safetensors")
    rewrite(path, lambda header, _: header.update(format_version=99))
    with pytest.raises(ModelFileError, match=r"format 99.*[Uu]pgrade"):
        load_model(path)


def test_missing_weights_are_reported(model, tmp_path):
    path = save_model(model, tmp_path / "tiny.safetensors")
    rewrite(path, lambda _, tensors: tensors.pop("embedding"))
    with pytest.raises(ModelFileError, match="do not fit together"):
        load_model(path)


def test_a_failed_save_leaves_the_old_file(model, tmp_path):
    path = save_model(model, tmp_path / "tiny.safetensors")
    size = path.stat().st_size
    with pytest.raises(TypeError):
        save_model(model, path, {"name": object()})
    assert path.stat().st_size == size
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.safetensors"]

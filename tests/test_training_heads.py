"""Training on several data sets at once: each with its own zero, its own labels and errors, one network."""

import json

import numpy as np
import pytest
from ase.io import write
from training_toys import E0, TINY_MODEL, toy_frames, write_toys

from mmace_sim.errors import ConfigError, DataError
from mmace_sim.model.checkpoint import load_all_heads, load_model, read_metadata
from mmace_sim.training.config import load_train_config
from mmace_sim.training.evaluation.evaluate import evaluate_files
from mmace_sim.training.evaluation.metrics import error_line
from mmace_sim.training.setup import start_model
from mmace_sim.training.trainer import train

SHIFT = 700.0


def two_heads(tmp_path, **trainer):
    """The same toys twice, the second time with other names, another zero and smaller moments."""
    write_toys(tmp_path / "a.extxyz", n=12)
    others = toy_frames(12, seed=1)
    for atoms in others:
        atoms.info["energy_b"] = atoms.info.pop("REF_energy") + SHIFT * len(atoms)
        atoms.arrays["REF_magmom"] *= 0.5
    write(tmp_path / "b.extxyz", others, format="extxyz")
    heads = {
        "a": {"train_file": str(tmp_path / "a.extxyz"), "valid_fraction": 0.2},
        "b": {
            "train_file": [str(tmp_path / "b.extxyz")],
            "valid_fraction": 0.2,
            "keys": {"energy": "energy_b"},
            "weight": 2.0,
        },
    }
    settings = {"max_epochs": 2, "batch_size": 4, "device": "cpu", "dtype": "float64", **trainer}
    return load_train_config(None, {"data": {"heads": heads}, "model": TINY_MODEL, "trainer": settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("heads")
    folder = tmp_path / "run"
    folder.mkdir()
    return tmp_path, train(two_heads(tmp_path), folder)


def test_each_head_gets_its_zero_and_largest_moments(trained):
    _, result = trained
    energies = result.model.reference.atomic_energies
    assert energies[0].item() == pytest.approx(E0, abs=1.0)
    assert energies[1].item() == pytest.approx(E0 + SHIFT, abs=1.0)
    config = result.model.config
    assert config.heads["a"] == {}
    assert config.heads["b"][26] < config.max_moment[26]
    assert result.model.reference.max_moment.tolist() == [config.max_moment[26], config.heads["b"][26]]


def test_the_log_tells_the_validation_errors_of_each_head(tmp_path, caplog):
    (tmp_path / "run").mkdir()
    with caplog.at_level("INFO", logger="mmace_sim"):
        result = train(two_heads(tmp_path, max_epochs=1, keep="last"), tmp_path / "run")
    for head in ("a", "b"):
        last = error_line(result.errors[f"valid/{head}"].overall)
        assert f"epoch 0  head {head}  valid MAE: {last}" in caplog.text


def test_errors_are_told_for_each_head(trained):
    tmp_path, result = trained
    assert set(result.errors) == {"train/a", "valid/a", "train/b", "valid/b"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["errors"]) == set(result.errors)
    alone = evaluate_files(load_model(result.path, head="a"), [tmp_path / "a.extxyz"])
    counted = sum(result.errors[f"{name}/a"].n_structures for name in ("train", "valid"))
    assert alone.n_structures == counted == 12
    mean = sum(e.overall["energy"].mae * e.n_structures for k, e in result.errors.items() if k.endswith("/a"))
    assert alone.overall["energy"].mae == pytest.approx(mean / 12)
    files = read_metadata(result.path)["training_data"]["files"]
    assert [(f["head"], f["file"]) for f in files] == [("a", "a.extxyz"), ("b", "b.extxyz")]
    assert str(tmp_path) not in json.dumps(read_metadata(result.path))


def test_the_written_configuration_can_be_used_again(trained):
    tmp_path, _ = trained
    again = load_train_config(tmp_path / "run" / "config.yaml")
    assert list(again.data.sources()) == ["a", "b"]
    assert again.data.heads["b"].weight == 2.0
    again.trainer.max_epochs = 3
    resumed = train(again, tmp_path / "run", resume=True)
    assert resumed.n_epochs == 3


def test_training_goes_on_from_the_heads_of_a_model(trained):
    tmp_path, result = trained
    config = two_heads(tmp_path)
    config.model = {"start_from": str(result.path)}
    assert start_model(config).heads == ["a", "b"]
    flat = load_train_config(
        None,
        {"data": {"train_file": str(tmp_path / "a.extxyz")}, "model": {"start_from": f"{result.path}#b"}},
    )
    started = start_model(flat)
    assert started.heads == ["default"]
    stored = load_all_heads(result.path).reference.atomic_energies
    assert started.reference.atomic_energies.item() == stored[1]


def test_energies_of_atoms_are_given_for_all_heads_of_an_element_or_for_none(tmp_path):
    config = two_heads(tmp_path, max_epochs=1)
    config.data.heads["a"].atomic_energies = {"Fe": -3.0}
    with pytest.raises(
        ConfigError, match="gives Fe for a but not for b, where it would be fitted to crystals"
    ):
        train(config, tmp_path / "run")


def test_heads_change_nothing_but_the_energies_of_the_atoms(tmp_path):
    """Two heads of one data set are one data set: the same numbers bit for bit."""
    write_toys(tmp_path / "a.extxyz", n=8)
    source = {"train_file": str(tmp_path / "a.extxyz"), "valid_fraction": 0.2}
    results = []
    for name, data in (("flat", source), ("heads", {"heads": {"only": source}})):
        (tmp_path / name).mkdir()
        trainer = {"max_epochs": 2, "device": "cpu", "dtype": "float64"}
        config = load_train_config(None, {"data": data, "model": TINY_MODEL, "trainer": trainer})
        results.append(train(config, tmp_path / name).model.state_dict())
    for key, value in results[0].items():
        assert np.array_equal(value, results[1][key]), key


def test_mistakes(tmp_path):
    file = str(write_toys(tmp_path / "a.extxyz", n=4))
    data = {"train_file": file, "keys": {"energy": "e"}, "heads": {"a": {"train_file": file}}}
    with pytest.raises(ConfigError, match="with heads, train_file, keys must be given for each head"):
        load_train_config(None, {"data": data})
    with pytest.raises(ConfigError, match="head a has no train_file"):
        load_train_config(None, {"data": {"heads": {"a": {}}}})
    with pytest.raises(ConfigError, match="unknown key"):
        load_train_config(None, {"data": {"heads": {"a": {"train_files": file}}}})
    source = {"train_file": file, "valid_fraction": 0.0}
    heads = {"a": source, "b": source | {"valid_fraction": 1e-9}}
    config = load_train_config(None, {"data": {"heads": heads}})
    with pytest.raises(DataError, match="b validation set is empty"):
        train(config, tmp_path)

import pytest
import yaml

from mmace_sim.base.settings import merge
from mmace_sim.errors import ConfigError
from mmace_sim.training.config import load_train_config, save_config


def write(path, content):
    path.write_text(yaml.safe_dump(content))
    return path


def test_flags_win_over_the_file_and_the_rest_has_defaults(tmp_path):
    file = write(
        tmp_path / "c.yaml", {"data": {"train_file": "a.extxyz"}, "trainer": {"max_epochs": 5, "seed": 3}}
    )
    config = load_train_config(file, {"trainer": {"max_epochs": 7}})
    assert config.trainer.max_epochs == 7
    assert config.trainer.seed == 3
    assert [str(p) for p in config.data.train_file] == ["a.extxyz"]
    assert config.optimizer.schedule == "cosine"


def test_a_saved_configuration_can_be_read_again(tmp_path):
    config = load_train_config(
        None, {"data": {"train_file": ["a.extxyz"]}, "model": {"hidden_irreps": "4x0e"}}
    )
    save_config(config, tmp_path / "out.yaml")
    assert load_train_config(tmp_path / "out.yaml") == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trainer": {"max_epoch": 5}}, r"unknown key trainer.max_epoch \(known: .*max_epochs"),
        ({"trainr": {}}, r"unknown key trainr \(known: name"),
        ({"data": {"keys": {"energie": "E"}}}, "unknown key data.keys.energie"),
        ({"model": {"hiden_irreps": "4x0e"}}, r"unknown field\(s\) hiden_irreps; known: .*hidden_irreps"),
        ({"optimizer": {"lr": -1.0}}, "optimizer.lr"),
        ({"data": {"valid_fraction": 0.6, "test_fraction": 0.5}}, "nothing would be left"),
        ({}, "no training data"),
    ],
)
def test_mistakes_are_named(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        load_train_config(write(tmp_path / "c.yaml", content))


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_train_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_train_config(tmp_path / "missing.yaml")


def test_merge_is_recursive():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}}) == {"a": {"b": 5, "c": 2}, "d": 3}

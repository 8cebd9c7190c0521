"""Configurations that nobody would write: each one clear error, at once."""

import ase.io
import pytest
import yaml
from cli_tools import bcc, mmace_sim, write_tiny_model
from training_toys import TINY_MODEL, write_toys

from mmace_sim.base.yamlfile import read_yaml
from mmace_sim.errors import ConfigError
from mmace_sim.properties.curie.declaration import CurieSettings

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

HOSTILE = {
    "twice": (b"fmax: 0.1\nfmax: 0.2\n", "'fmax' stands there twice"),
    "twice within": (b"g_factor: {Fe: 1, Fe: 2}\n", "'Fe' stands there twice"),
    "deep list": (b"a: " + b"[" * 10**5, "more than 30 levels"),
    "deep mapping": (b"a: " + b"{a: " * 10**5, "more than 30 levels"),
    "deep block": (b"".join(b" " * k + b"a:\n" for k in range(1000)), "more than 30 levels"),
    "bomb": (BOMB.encode(), "more than 100000 values"),
    "endless": (b"a: &a [*a]\n", "more than 100000 values"),
    "number as key": (b"3: x\n", "the key 3 is no option"),
    "truth as key": (b"true: 2\n", "'true' is no word; write it in quotes"),
    "list as key": (b"? [a, b]\n: 3\n", "is no word"),
    "null as key": (b"~: 3\n", "is no word"),
    "list": (b"- fmax\n", "got a list"),
    "text": (b"fmax\n", "got a str"),
    "tag": (b"a: !!python/object/apply:os.system ['true']\n", "no valid YAML"),
    "tab": (b"a:\n\t- b\n", "no valid YAML"),
    "latin-1": (b"a: \xe9\n", "no valid YAML"),
    "null": (b"a: \x00\n", "no valid YAML"),
    "date": (b"a: 2001-99-99\n", "no valid YAML"),
    "digits": (b"a: " + b"9" * 5000, "no valid YAML"),
    "two documents": (b"a: 1\n---\nb: 2\n", "no valid YAML"),
    "large": (b"#" * 2**21, "larger than 1 MB"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_configuration(tmp_path, case):
    content, message = HOSTILE[case]
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert len(str(caught.value)) < 600 + len(str(file))
    for command in (("relax", "-c", file), ("train", file), ("finetune", "-c", file)):
        result = mmace_sim(*command)
        assert result.exit_code == 2
        assert "Error" in result.output


def test_numbers_and_truth_are_those_of_yaml_1_2(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("a: [1, -2, 0.5, 1e-3, 1.0e-05, .5, true, no, 010, 1:30, null, ~, 1_000, 0x1f]\n")
    assert read_yaml(file)["a"] == [
        1, -2, 0.5, 1e-3, 1e-5, 0.5, True, "no", "010", "1:30", None, None, "1_000", "0x1f",
    ]  # fmt: skip


def test_what_is_one(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("# nothing\n")
    assert read_yaml(file) == {}
    file.write_text("\ufeffbase: &b {x: 1}\nderived:\n  <<: *b\n  y: {26: 3.0}\n", encoding="utf-8")
    assert read_yaml(file) == {"base": {"x": 1}, "derived": {"x": 1, "y": {26: 3.0}}}
    for missing in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_yaml(missing)


@pytest.mark.parametrize(
    "line",
    ["device: meta", "device: quantum", "threads: 1e9", "threads: 1000000000", "threads: -1", "threads: 0",
     "threads: 2.5", "fmax: yes", "max_steps: true", "stress_tol: 1:30", "fmax: .inf", "fmax: .nan", "max_steps: 99999999999999999999999999"],
)  # fmt: skip
def test_impossible_values(tmp_path, line):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    (tmp_path / "c.yaml").write_text(f"{line}\n")
    out = tmp_path / "out"
    result = mmace_sim("relax", tmp_path / "iron.extxyz", "-m", model, "-c", tmp_path / "c.yaml", "-o", out)
    assert result.exit_code == 2, result.output
    assert line.split(":")[0] in result.output
    assert not out.exists()


@pytest.mark.parametrize(
    "line", ["device: meta", "num_threads: 1000000000", "num_threads: -1", "ema_decay: .nan"]
)
def test_impossible_values_for_a_training(tmp_path, line):
    write_toys(tmp_path / "toys.extxyz", n=6)
    key, value = line.split(": ")
    trainer = {key: yaml.safe_load(value)}
    config = {"data": {"valid_fraction": 0.3}, "model": TINY_MODEL, "trainer": trainer}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    arguments = ("train", tmp_path / "c.yaml", "--train-file", tmp_path / "toys.extxyz", "-o", out)
    result = mmace_sim(*arguments)
    assert result.exit_code == 2, result.output
    assert key in result.output
    assert not out.exists()


@pytest.mark.parametrize("field", [{"sizes": [4, True]}, {"temperatures": [True, 300]}, {"sweeps": True}])
def test_true_and_false_are_no_numbers_inside_of_lists_either(field):
    with pytest.raises(ConfigError, match="true"):
        CurieSettings.of(field, "curie")


def test_true_and_false_are_for_the_section_to_judge():
    from mmace_sim.training.config import load_train_config

    options = {"data": {"train_file": ["x.extxyz"]}, "trainer": {"figures": False}}
    assert load_train_config(None, options).trainer.figures is False
    with pytest.raises(ConfigError, match="max_epochs"):
        load_train_config(None, options | {"trainer": {"max_epochs": True}})

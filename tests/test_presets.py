"""The paper's hyper-parameters by name."""

import re

import numpy as np
import pytest
from ase.io import write
from cli_tools import mmace_sim
from training_toys import toy_frames, write_toys

from mmace_sim.architectures.paper_mmace import PaperConfig
from mmace_sim.errors import ConfigError, DataError
from mmace_sim.training.config import DataConfig, load_train_config
from mmace_sim.training.data.split import read_split
from mmace_sim.training.presets import presets

PAPER = {
    "fe": ("64x0e", 1, 4.5, 3),
    "feal": ("64x0e", 1, 5.0, 1),
    "crn": ("64x0e", 1, 5.0, 1),
    "anisotropy": ("64x0e+64x1o", 2, 6.0, 1),
    "pretraining": ("128x0e+128x1o", 2, 6.0, 1),
}
DATA = {"data": {"train_file": ["x.extxyz"]}}


@pytest.mark.parametrize("name", PAPER)
def test_the_hyper_parameters_are_those_of_the_paper(name):
    config = load_train_config(None, DATA, preset=name)
    model = PaperConfig.model_validate(
        {k: v for k, v in config.model.items() if k != "architecture"} | {"atomic_numbers": [26]}
    )
    irreps, layers, r_max, degree = PAPER[name]
    assert (model.hidden_irreps, model.num_interactions, model.r_max, model.max_m_ell) == (
        irreps, layers, r_max, degree,
    )  # fmt: skip
    assert (model.correlation, model.max_ell, model.num_bessel, model.num_moment_basis) == (3, 3, 8, 8)
    assert config.optimizer.gradient_clip == (100.0 if name == "pretraining" else 10.0)
    assert set(presets()) == set(PAPER)


def test_configuration_and_flags_win(tmp_path):
    (tmp_path / "c.yaml").write_text("model: {hidden_irreps: 8x0e, max_m_ell: 2}\ntrainer: {max_epochs: 2}\n")
    config = load_train_config(tmp_path / "c.yaml", DATA | {"model": {"r_max": 3.0}}, preset="fe")
    assert config.model["hidden_irreps"] == "8x0e"
    assert (config.model["max_m_ell"], config.model["r_max"]) == (2, 3.0)
    assert config.model["architecture"] == "PaperMMACE"


def test_a_preset_can_be_trained(tmp_path):
    data = write_toys(tmp_path / "toys.extxyz", n=6)
    result = mmace_sim(
        "train", "--preset", "feal", "--hidden-irreps", "4x0e", "--train-file", data, "--max-epochs", "1",
        "-o", tmp_path / "run", "--device", "cpu", "--no-stability-test",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "PaperMMACE" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_wrong_name_lists_all():
    with pytest.raises(ConfigError, match=r"fe .*anisotropy .*pretraining"):
        load_train_config(None, DATA, preset="nickel")


def large_forces(folder):
    """Ten structures, three of which have a force above 20 eV/Å."""
    images = toy_frames(10)
    for atoms in images[:3]:
        atoms.arrays["REF_forces"] = np.array([[0, 18.0, 18.0], [0, -18.0, -18.0]])
    write(folder / "toys.extxyz", images, format="extxyz")
    return folder / "toys.extxyz"


def test_large_forces_are_left_out_and_counted(tmp_path, caplog):
    source = {"train_file": [large_forces(tmp_path)], "valid_fraction": 0.3}
    everything = read_split(DataConfig(**source))
    with caplog.at_level("INFO", logger="mmace_sim"):
        split = read_split(DataConfig(**source, max_force=20.0))
    assert len(split.train) + len(split.valid) == len(everything.train) + len(everything.valid) - 3
    counts = re.findall(r"left out (\d+) of (\d+) (\w+) structures with a force above 20 eV/Å", caplog.text)
    assert sum(int(n) for n, _, _ in counts) == 3
    assert "the largest is 25.46 eV/Å" in caplog.text
    assert len(read_split(DataConfig(**source, max_force=26.0)).train) == len(everything.train)
    tested = DataConfig(**source, test_file=[large_forces(tmp_path)], max_force=20.0)
    assert len(read_split(tested).test) == 10  # what is tested on is left as it is


def test_structures_with_other_elements_are_left_out_and_counted(tmp_path, caplog):
    images = toy_frames(10)
    for atoms in images[:4]:
        atoms.symbols[0] = "Ni"
    write(tmp_path / "toys.extxyz", images, format="extxyz")
    source = {"train_file": [tmp_path / "toys.extxyz"], "valid_fraction": 0.3}
    (symbol,) = set(images[-1].get_chemical_symbols())
    with caplog.at_level("INFO", logger="mmace_sim"):
        split = read_split(DataConfig(**source, elements=[symbol]))
    assert len(split.train) + len(split.valid) == 6
    assert f"left out 4 of 10 structures with other elements than {symbol}" in caplog.text
    assert len(read_split(DataConfig(**source, elements=[symbol, "Ni"])).train) > len(split.train)
    with pytest.raises(
        DataError, match=r"all 10 structures of a set hold other elements than Al \(elements\)"
    ):
        read_split(DataConfig(**source, elements=["Al"]))


def test_the_limit_holds_for_every_head_without_one_of_its_own(tmp_path):
    file = {"train_file": [large_forces(tmp_path)], "valid_fraction": 0.0}
    heads = {"a": file, "b": file | {"max_force": 26.0}}
    split = read_split(DataConfig(heads=heads, max_force=20.0))
    heads_of = [frame.head for frame in split.train]
    assert (heads_of.count("a"), heads_of.count("b")) == (7, 10)
    assert load_train_config(None, DATA, preset="pretraining").data.max_force == 20.0
    assert load_train_config(None, DATA, preset="fe").data.max_force is None

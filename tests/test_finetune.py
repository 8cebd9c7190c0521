"""Fine-tuning: the zero of energy, replay, what is refused, and what the files say."""

import json
import warnings

import numpy as np
import pytest
import torch
import yaml
from ase.io import read, write
from foundation_tools import write_mace
from training_toys import TINY_MODEL, toy_frames, write_toys
from typer.testing import CliRunner

from mmace_sim.cli.app import app
from mmace_sim.errors import ConfigError, DataError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.io.frames import read_frames
from mmace_sim.model.checkpoint import load_all_heads, load_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.training.config import load_train_config
from mmace_sim.training.evaluation.evaluate import evaluate_files
from mmace_sim.training.finetuning.config import FinetuneConfig, ReplayConfig
from mmace_sim.training.finetuning.finetune import finetune, load_finetune_config, write_start
from mmace_sim.training.finetuning.replay import distort, label, write_frames
from mmace_sim.training.finetuning.zero import zero_shift
from mmace_sim.training.trainer import train

SHIFT = 700.0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model trained on toys, and the same kind of toys with another zero of energy."""
    folder = tmp_path_factory.mktemp("finetune")
    write_toys(folder / "old.extxyz", n=12)
    others = toy_frames(10, seed=1)
    for atoms in others:
        atoms.info["REF_energy"] += SHIFT * len(atoms)
    write(folder / "new.extxyz", others, format="extxyz")
    (folder / "base").mkdir()
    config = {
        "data": {"train_file": str(folder / "old.extxyz"), "valid_fraction": 0.2},
        "model": TINY_MODEL,
        "trainer": {"max_epochs": 3, "batch_size": 4, "device": "cpu", "dtype": "float64"},
    }
    train(load_train_config(None, config), folder / "base")
    return folder


def settings(place, **extra):
    base = {
        "model": str(place / "base" / "model.safetensors"),
        "data": {"train_file": str(place / "new.extxyz"), "valid_fraction": 0.2},
        "trainer": {"max_epochs": 1, "batch_size": 4, "device": "cpu", "dtype": "float64"},
    }
    return load_finetune_config(None, base | extra)


def test_the_zero_of_the_new_data_is_found(place, tmp_path):
    base = load_model(place / "base" / "model.safetensors")
    frames = read_frames([place / "new.extxyz"]).frames
    residual = [
        (f.labels["energy"] - p.labels["energy"]) / len(f.atoms)
        for f, p in zip(frames, label(base, frames), strict=True)
    ]
    assert zero_shift(base, frames)[0] == pytest.approx(np.mean(residual), rel=1e-12)
    result = finetune(settings(place), tmp_path)
    moved = result.training.model.reference.atomic_energies - base.reference.atomic_energies
    assert moved.item() == pytest.approx(SHIFT, abs=0.1)
    assert set(result.before) == {"valid"}  # there is no test set
    assert result.before["valid"].overall["energy"].mae < 200  # of 700 eV
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["errors_before"]["valid"]["energy"]["mae"] == result.before["valid"].overall["energy"].mae
    header = load_model(tmp_path / "model.safetensors").metadata
    assert header["started_from"]["name"] == "mmace"


@pytest.mark.parametrize(("lr", "warned"), [(5e-4, True), (0.2, False)])
def test_few_steps_are_warned_of(place, tmp_path, caplog, lr, warned):
    with caplog.at_level("WARNING", logger="mmace_sim"):
        finetune(settings(place, optimizer={"lr": lr}), tmp_path)
    assert ("steps at a learning rate of 0.0005 hardly move" in caplog.text) is warned


@pytest.mark.parametrize(("e0", "expected"), [("keep", 0.0), ({"Fe": -3000.0}, None)])
def test_the_zero_can_be_kept_or_given(place, tmp_path, e0, expected):
    base = load_model(place / "base" / "model.safetensors").reference.atomic_energies.item()
    model = finetune(settings(place, e0=e0), tmp_path).training.model
    assert model.reference.atomic_energies.item() == (-3000.0 if expected is None else base)


def test_another_definition_of_the_moments_goes_into_the_one_body_energy(place, tmp_path):
    """Energies and magnetic forces with another E1(m·m): all that is different is in the one-body energy."""
    frames = toy_frames(12, seed=4)
    base = load_model(place / "base" / "model.safetensors")
    for atoms in frames:
        set_magmoms(atoms, atoms.arrays["REF_magmom"])
        out = evaluate(base, graph_from_atoms(atoms, base.r_max))
        square = (atoms.arrays["REF_magmom"] ** 2).sum(1)
        atoms.info["REF_energy"] = out["energy"].item() + SHIFT * len(atoms) + 0.1 * square.sum()
        atoms.arrays["REF_magforces"] = out["magforces"].numpy() - 0.2 * atoms.arrays["REF_magmom"]
    write(tmp_path / "other.extxyz", frames, format="extxyz")
    data = {"train_file": str(tmp_path / "other.extxyz"), "valid_fraction": 0.2}
    errors = {}
    for e0 in ("refit", "one-body"):
        config = settings(place, data=data, e0=e0)
        write_start(config, tmp_path)
        start = load_model(tmp_path / "start.safetensors")
        errors[e0] = evaluate_files(start, [tmp_path / "other.extxyz"]).overall
    assert errors["one-body"]["energy"].mae < 0.1 * errors["refit"]["energy"].mae
    assert errors["one-body"]["magforces"].mae < 0.1 * errors["refit"]["magforces"].mae


def test_replay_keeps_a_head_of_the_old_data(place, tmp_path):
    replay = {"file": [str(place / "old.extxyz")], "n": 8, "valid_fraction": 0.3}
    result = finetune(settings(place, replay=replay), tmp_path)
    assert set(result.before) == {"valid/default", "valid/replay"}
    assert set(result.training.errors) == {"train/default", "valid/default", "train/replay", "valid/replay"}
    images = read(tmp_path / "replay.extxyz", ":") + read(tmp_path / "replay_valid.extxyz", ":")
    old = {a.info["config_id"]: a for a in read(place / "old.extxyz", ":")}
    assert len(images) == 8
    for image in images:
        same = old[image.info["config_id"]]
        assert image.info["REF_energy"] == pytest.approx(same.info["REF_energy"], abs=1e-9)
        assert np.allclose(image.arrays["REF_magforces"], same.arrays["REF_magforces"], atol=1e-8)
    energies = load_all_heads(result.training.path).reference.atomic_energies
    base = load_model(place / "base" / "model.safetensors").reference.atomic_energies
    assert energies[1] == base[0]
    assert load_model(result.training.path).heads == ["default"]  # the new data's, without asking
    assert load_model(f"{result.training.path}#replay").heads == ["replay"]


def test_distorted_copies_carry_the_labels_of_the_base_model(place, tmp_path):
    result = finetune(settings(place, replay={"n_variants": 12, "valid_fraction": 0.3}), tmp_path)
    before = result.before["valid/replay"].overall
    assert all(error.mae < 1e-4 for error in before.values())  # they are its own
    base = load_model(place / "base" / "model.safetensors")
    image = read(tmp_path / "replay_valid.extxyz", 0)
    set_magmoms(image, image.arrays["REF_magmom"])
    out = evaluate(base, graph_from_atoms(image, base.r_max))
    assert out["energy"].item() == pytest.approx(image.info["REF_energy"], abs=1e-6)
    assert np.allclose(out["stress"].numpy()[0].ravel(), np.ravel(image.info["REF_stress"]), atol=1e-7)


def test_distortions_have_the_sizes_asked_for(place):
    frame = read_frames([place / "new.extxyz"]).frames[0]
    rng = np.random.default_rng(0)
    config = ReplayConfig(n_variants=1, rattle=0.0, strain=0.03, turn=10.0, stretch=0.2)
    copies = [distort(frame, config, rng) for _ in range(400)]
    strains = [c.atoms.cell.array @ np.linalg.inv(frame.atoms.cell.array) - np.eye(3) for c in copies]
    assert np.std([s[0, 0] for s in strains]) == pytest.approx(0.03, rel=0.15)
    assert all(np.allclose(s, s.T) for s in strains)  # the cell is cubic: strain without rotation
    lengths = np.array([np.linalg.norm(c.magmoms, axis=1) for c in copies])
    before = np.linalg.norm(frame.magmoms, axis=1)
    assert np.std(lengths / before) == pytest.approx(0.2, rel=0.15)
    cosines = np.array([(c.magmoms * frame.magmoms).sum(1) for c in copies]) / (lengths * before)
    assert np.sqrt(np.mean(np.degrees(np.arccos(cosines)) ** 2)) == pytest.approx(10.0, rel=0.15)
    assert not copies[0].labels
    assert "config_id" not in copies[0].atoms.info


def test_frames_survive_a_file(place, tmp_path):
    frames = read_frames([place / "old.extxyz"]).frames
    write_frames(tmp_path / "again.extxyz", frames)
    for frame, again in zip(frames, read_frames([tmp_path / "again.extxyz"]).frames, strict=True):
        assert again.config_type == frame.config_type
        assert np.allclose(again.magmoms, frame.magmoms, atol=1e-8)
        assert set(again.labels) == set(frame.labels)
        assert all(np.allclose(again.labels[k], frame.labels[k], atol=1e-7) for k in frame.labels)


def test_adapters_end_in_an_ordinary_model_and_frozen_parts_stay(place, tmp_path):
    optimizer = {"lora": 2, "freeze": ["radial"], "lr": 0.01}
    result = finetune(settings(place, optimizer=optimizer), tmp_path)
    base = load_model(place / "base" / "model.safetensors").state_dict()
    tuned = load_model(result.training.path).state_dict()
    assert list(tuned) == list(base)
    moved = {key for key in base if not torch.equal(base[key], tuned[key])}
    assert "layers.0.product.linears.0.weight" in moved
    assert not any(".radial." in key for key in moved)
    errors = finetune(settings(place, optimizer=optimizer), tmp_path, resume=True).training.errors
    assert errors["valid"].overall["energy"].mae == pytest.approx(
        result.training.errors["valid"].overall["energy"].mae
    )


def test_new_elements_are_refused_with_advice(place, tmp_path):
    write_toys(tmp_path / "al.extxyz", n=10, symbol="Al")
    with pytest.raises(DataError, match=r"hold Al,.*knows Fe.*mmace-sim train.*--foundation"):
        finetune(settings(place, data={"train_file": str(tmp_path / "al.extxyz")}), tmp_path)


def test_large_moments_are_counted(place, tmp_path, caplog):
    frames = toy_frames(10, seed=2)
    for atoms in frames[:3]:
        atoms.arrays["REF_magmom"] *= 5
    write(tmp_path / "large.extxyz", frames, format="extxyz")
    data = {"train_file": str(tmp_path / "large.extxyz"), "valid_file": str(place / "new.extxyz")}
    with caplog.at_level("WARNING", logger="mmace_sim"):
        finetune(settings(place, data=data), tmp_path)
    assert "3 of 10 structures have moments above the largest" in caplog.text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"foundation": "a.model"}, "either model or foundation"),
        ({"magnetic": {"spin_channels": 4}}, "magnetic is for foundation only"),
        ({"replay": {"n": 3}}, "one of file, structures and n_variants is needed, none given"),
        ({"replay": {"n_variant": 3}}, r"unknown key replay\.n_variant"),
        ({"model": None}, "either model or foundation"),
        ({"data": {}}, "no data to fine-tune on"),
    ],
)
def test_mistakes(place, extra, message):
    with pytest.raises(ConfigError, match=message):
        settings(place, **extra)


def test_energies_on_the_command_line():
    assert FinetuneConfig(model="a", e0="refit").e0 == "refit"
    assert FinetuneConfig(model="a", e0="Fe=-8.1, Al=-3").e0 == {"Fe": -8.1, "Al": -3.0}
    with pytest.raises(ValueError, match=r"expected refit, one-body, keep, or values"):
        FinetuneConfig(model="a", e0="Fe=x")


def test_command(place, tmp_path):
    folder = tmp_path / "run"
    arguments = ["finetune", str(place / "base" / "model.safetensors"), str(place / "new.extxyz")]
    arguments += ["--replay", str(place / "old.extxyz"), "--n-replay", "9", "--valid-fraction", "0.2"]
    arguments += ["--freeze", "embedding,radial", "--max-epochs", "1", "--device", "cpu", "-o", str(folder)]
    arguments += ["--no-stability-test"]  # what is trained for an epoch is no model
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    written = {p.name for p in folder.iterdir()}
    assert {"finetune.yaml", "start.safetensors", "replay.extxyz", "config.yaml"} <= written
    assert {"model.safetensors", "summary.json", "metrics.csv", "log.txt", "checkpoints"} <= written
    assert "before" in result.output
    assert "#replay" in result.output
    written = yaml.safe_load((folder / "finetune.yaml").read_text())
    assert written["optimizer"]["freeze"] == ["embedding", "radial"]
    assert written["optimizer"]["lr"] == 5e-4
    assert written["replay"]["n"] == 9
    again = CliRunner().invoke(app, ["finetune", "--resume", "-o", str(folder), "--max-epochs", "2", "-q"])
    assert again.exit_code == 0, again.output
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "--force" in refused.output


def test_a_foundation_takes_the_place_of_the_model(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mace-torch compiles a part of itself to save it
        path, _ = write_mace(tmp_path / "tiny.model", max_ell=1, r_max=3.2, hidden_irreps="4x0e")
    config = {
        "data": {"train_file": str(write_toys(tmp_path / "toys.extxyz", n=8)), "valid_fraction": 0.2},
        "magnetic": {"spin_channels": 2, "spin_max_ell": 1, "freeze_backbone": True},
        "trainer": {"max_epochs": 1, "device": "cpu", "dtype": "float64", "stability_test": False},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["finetune", "--foundation", str(path), "--config", str(tmp_path / "config.yaml")]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["started_from"] == str(path)
    assert load_model(tmp_path / "run" / "model.safetensors").elements == [26]

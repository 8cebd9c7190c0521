import csv
import json

import numpy as np
import pytest
import torch
from training_toys import E0, TINY_MODEL, toy_frames, write_toys

from mmace_sim.errors import ConfigError, DataError
from mmace_sim.model.checkpoint import load_model, read_metadata
from mmace_sim.testing.identities import measure_identities
from mmace_sim.training.config import load_train_config
from mmace_sim.training.evaluation.evaluate import evaluate_files
from mmace_sim.training.trainer import train

FILES = {"config.yaml", "metrics.csv", "model.safetensors", "summary.json", "checkpoints"}


def tiny_config(tmp_path, **trainer):
    path = tmp_path / "toys.extxyz"
    if not path.exists():
        write_toys(path, n=16)
    settings = {
        "max_epochs": 3,
        "batch_size": 4,
        "device": "cpu",
        "dtype": "float64",
        "figures": False,
        **trainer,
    }
    return load_train_config(
        None,
        {
            "data": {"train_file": str(path), "valid_fraction": 0.2, "test_fraction": 0.1, "licence": "CC0"},
            "model": TINY_MODEL,
            "trainer": settings,
        },
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_model_trained_in_single_precision_has_exact_constants(tmp_path, folder):
    model = train(tiny_config(tmp_path, max_epochs=1, dtype="float32"), folder).model
    stored = dict(load_model(folder / "model.safetensors").named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, stored[name], rtol=0, atol=0)
    violations = measure_identities(model, names=["joint_rotation"], n_structures=3)
    assert violations["joint_rotation"] * 3385 < 1e-10  # of energies whose zero is far away as of any others


def test_a_run_learns_and_writes_its_files(tmp_path, folder):
    seen = []
    config = tiny_config(tmp_path, max_epochs=15, batch_size=2)
    config.optimizer.lr = 0.03
    result = train(config, folder, on_epoch=seen.append)
    assert {p.name for p in folder.iterdir()} == FILES
    losses = [float(row["train_loss"]) for row in rows(folder)]
    assert len(losses) == 15 == len(seen)
    assert losses[-1] < 0.8 * losses[0]
    metadata = read_metadata(folder / "model.safetensors")
    assert metadata["elements"] == ["Fe"]
    assert metadata["license"] == "CC0"
    assert len(metadata["training_data"]["files"][0]["sha256"]) == 64
    assert set(metadata["errors"]) == {"train", "valid", "test"}
    assert str(tmp_path) not in json.dumps(metadata)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["best_epoch"] == result.best_epoch
    model = load_model(folder / "model.safetensors")
    assert model.reference.atomic_energies.item() == pytest.approx(E0, abs=1.0)
    assert model.config.max_moment[26] > 2.0
    again = evaluate_files(model, [tmp_path / "toys.extxyz"])
    assert again.n_structures == 16
    assert again.overall["energy"].mae < 200.0


def test_last_checkpoint_is_written_after_every_epoch(tmp_path, folder):
    config = tiny_config(tmp_path, max_epochs=3)
    config.optimizer.lr = 1e-30  # the first epoch stays the best
    assert train(config, folder).best_epoch == 0
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2
    config.trainer.keep = "last"
    assert train(config, folder).best_epoch == 2


def test_without_a_validation_the_last_weights_become_the_model(tmp_path, folder, caplog):
    config = tiny_config(tmp_path, max_epochs=2, valid_every=5)
    result = train(config, folder)
    assert (result.best_epoch, result.is_best) == (1, False)
    assert "the last ones become the model" in caplog.text
    assert json.loads((folder / "summary.json").read_text())["weights"] == "last"
    config.trainer.max_time = 1e-9  # over within the first epoch
    stopped = train(config, folder)
    assert (stopped.n_epochs, stopped.best_epoch, stopped.is_best) == (0, 0, False)


def test_names_in_the_loss_must_exist(tmp_path, folder, caplog):
    with pytest.raises(ConfigError, match=r"loss\.magforce_elements: .*'Iron' is no chemical symbol"):
        load_train_config(None, {"loss": {"magforce_elements": ["Iron"]}, "data": {"train_file": "x"}})
    config = tiny_config(tmp_path, max_epochs=1)
    config.loss.config_type_weights = {"evn": 0.1}
    with pytest.raises(ConfigError, match="names evn; the config_types of the data are even, odd"):
        train(config, folder)
    config.loss.config_type_weights = {"*vn": 0.1, "odd": 1.0}
    with pytest.raises(ConfigError, match=r"names \*vn; the"):
        train(config, folder)
    config.loss.config_type_weights = {}
    config.loss.magforce_elements = ["Ni"]
    train(config, folder)
    assert "names Ni, which no training structure has" in caplog.text


def test_nothing_to_resume_from(tmp_path, folder):
    with pytest.raises(ConfigError, match=r"last\.ckpt"):
        train(tiny_config(tmp_path), folder, resume=True)


def test_plateau_and_early_stopping(tmp_path, folder):
    config = tiny_config(tmp_path, max_epochs=30, early_stopping=1)
    config.optimizer.schedule = "plateau"
    config.trainer.valid_every = 2
    config.optimizer.lr = 1e-30  # nothing improves
    config.optimizer.ema_decay = 0.0
    assert train(config, folder).n_epochs < 30
    assert [bool(row["valid_loss"]) for row in rows(folder)][:4] == [False, True, False, True]


def test_partial_labels_train(tmp_path, folder):
    from ase.io import write

    frames = toy_frames(12)
    for k, atoms in enumerate(frames):
        if k % 2:
            del atoms.arrays["REF_forces"]
            del atoms.info["REF_stress"]
        if k % 3:
            del atoms.arrays["REF_magforces"]
    write(tmp_path / "toys.extxyz", frames, format="extxyz")
    result = train(tiny_config(tmp_path, batch_size=1), folder)
    assert all(np.isfinite(e.mae) for e in result.errors["train"].overall.values())


def test_all_energies_missing_is_an_error(tmp_path, folder):
    from ase.io import write

    frames = toy_frames(8)
    for atoms in frames:
        del atoms.info["REF_energy"]
    write(tmp_path / "toys.extxyz", frames, format="extxyz")
    with pytest.raises(DataError, match="has an energy"):
        train(tiny_config(tmp_path), folder)


def test_unusable_structures_stop_the_run_before_it_starts(tmp_path, folder):
    from ase.io import write

    frames = toy_frames(8)
    del frames[3].arrays["REF_magmom"]
    write(tmp_path / "toys.extxyz", frames, format="extxyz")
    with pytest.raises(DataError, match=r"toys\.extxyz@3"):
        train(tiny_config(tmp_path), folder)


def test_atomic_energies_can_be_given(tmp_path, folder):
    config = tiny_config(tmp_path, max_epochs=1)
    config.data.atomic_energies = {"Fe": -3384.5}
    assert train(config, folder).model.reference.atomic_energies.item() == -3384.5
    config.data.atomic_energies = {"Al": 0.0}
    with pytest.raises(ConfigError, match="'Al'"):
        train(config, folder)

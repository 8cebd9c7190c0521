"""Damaged and foreign checkpoints of a training: refused in words, with what is left to go on from."""

import os
import shutil

import pytest
import torch
from test_training_resume import config_of, folder_of
from training_toys import write_toys

from mmace_sim.errors import ModelFileError
from mmace_sim.training.checkpoints import read_checkpoint
from mmace_sim.training.trainer import train


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return write_toys(tmp_path_factory.mktemp("toys") / "toys.extxyz", n=8)


@pytest.fixture(scope="module")
def finished(toys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(config_of(toys, "constant", early_stopping=None, max_epochs=2), folder)
    return folder


class _Command:
    def __init__(self, argument):
        self.argument = argument

    def __reduce__(self):
        return os.mkdir, (self.argument,)


def damage(path, kind, trace):
    content = path.read_bytes()
    if kind == "half":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "another program's":
        torch.save({"epoch": 3, "model_state": {"w": torch.ones(2)}}, path)
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "code":
        torch.save({"state_dict": _Command(str(trace))}, path)
    elif kind == "of another run":
        saved = torch.load(path, weights_only=True)
        saved["state_dict"] = {k: v[:1] if v.ndim else v for k, v in saved["state_dict"].items()}
        torch.save(saved, path)


KINDS = ("half", "empty", "text", "another program's", "a list", "code", "of another run")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_last_checkpoint_offers_the_best_one(kind, finished, toys, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder, trace = tmp_path / "run", tmp_path / "it_ran"
    shutil.copytree(finished, folder)
    last = folder / "checkpoints" / "last.ckpt"
    damage(last, kind, trace)
    with pytest.raises(ModelFileError, match=r"last\.ckpt: .*`cp .*best\.ckpt .*last\.ckpt`, and --resume"):
        train(config_of(toys, "constant", early_stopping=None), folder, resume=True)
    assert not trace.exists()


def test_what_is_offered_works(finished, toys, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    checkpoints = folder / "checkpoints"
    shutil.copy(checkpoints / "best.ckpt", checkpoints / "last.ckpt")
    result = train(config_of(toys, "constant", early_stopping=None), folder, resume=True)
    assert result.n_epochs > 2
    assert not list(checkpoints.glob("*.part"))


def test_without_a_best_one_the_run_starts_again(finished, toys, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("last.ckpt", "best.ckpt"):
        damage(folder / "checkpoints" / name, "half", None)
    with pytest.raises(ModelFileError, match="cannot be read either: start the run again"):
        train(config_of(toys, "constant"), folder, resume=True)
    (folder / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(ModelFileError, match=r"Start the run again\.$"):
        train(config_of(toys, "constant"), folder, resume=True)


def test_a_damaged_best_checkpoint_loses_no_finished_run(toys, tmp_path, monkeypatch, caplog):
    from mmace_sim.training import checkpoints

    folder, saved = folder_of(tmp_path, "run"), checkpoints.Checkpoints._save

    def save(self, trainer, name):
        saved(self, trainer, name)
        if name == checkpoints.BEST_FILE:
            damage(self.folder / name, "half", None)

    monkeypatch.setattr(checkpoints.Checkpoints, "_save", save)
    result = train(config_of(toys, "constant", early_stopping=None, max_epochs=1), folder)
    assert not result.is_best
    assert "The last weights become the model" in caplog.text


def test_the_reader_names_what_is_missing(tmp_path):
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "x.ckpt")
    with pytest.raises(ModelFileError, match=r"x\.ckpt: lacks optimizer_states, lr_schedulers"):
        read_checkpoint(tmp_path / "x.ckpt")

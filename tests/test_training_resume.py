"""An interrupted run that goes on ends with the numbers of one that was left alone, bit for bit."""

import csv
import os
import signal

import pytest
import torch
from training_toys import TINY_MODEL, write_toys

from mmace_sim.model.checkpoint import load_model
from mmace_sim.training.config import load_train_config
from mmace_sim.training.trainer import train

EPOCHS = 4

RUNS = {
    "cosine": {"optimizer": {"schedule": "cosine", "warmup_epochs": 1.5}},
    "plateau": {
        "optimizer": {"schedule": "plateau", "plateau_patience": 1, "lr": 0.3, "ema_decay": 0.5},
        "trainer": {"keep": "last"},
    },
    "constant": {"optimizer": {"schedule": "constant"}, "trainer": {"early_stopping": 1, "max_epochs": 7}},
    "two stages": {
        "stage_two": {"start_epoch": 2, "weights": {"energy": 20.0, "forces": 0.0}},
        "augment": {"rotation": "moments", "time_reversal": True},
    },
    "two stages of plateaus": {
        "optimizer": {"schedule": "plateau", "plateau_patience": 1},
        "stage_two": {"start_epoch": 2, "lr": 1e-4},
        "augment": {"rotation": "joint"},
    },
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return write_toys(tmp_path_factory.mktemp("toys") / "toys.extxyz", n=11)


def config_of(toys, name, **trainer):
    settings = {"max_epochs": EPOCHS, "batch_size": 3, "device": "cpu", "dtype": "float32", "figures": False}
    run = {"data": {"train_file": str(toys), "valid_fraction": 0.2}, "model": TINY_MODEL, **RUNS[name]}
    run["trainer"] = {**settings, **run.get("trainer", {}), **trainer}
    return load_train_config(None, run)


def folder_of(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


def outcome(folder):
    """Everything a run leaves behind, without times."""
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    model = load_model(folder / "model.safetensors")
    kept = {
        k: last[k] for k in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "epoch_sums")
    }
    return {"rows": rows, "model": model.state_dict(), "errors": model.metadata["errors"], **kept}


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module")
def undisturbed(toys, tmp_path_factory):
    """Outcome of each run that nothing interrupts."""
    known = {}

    def run(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("straight")
            train(config_of(toys, name), folder)
            known[name] = outcome(folder)
        return known[name]

    return run


class Interrupt:
    """Ends a run in a given epoch and step."""

    def __init__(self, epoch, step, end):
        self.where, self.end = (epoch, step), end

    def __call__(self, report):
        if (report.epoch, report.step) == self.where:
            self.end()


def ctrl_c():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("name", "interrupt"),
    [
        ("plateau", {"on_step": Interrupt(2, 2, ctrl_c)}),
        # the row of the epoch is written before its checkpoint, and has to be replaced
        ("constant", {"on_epoch": lambda row: row["epoch"] == 2 and ctrl_c()}),
    ],
)
def test_a_run_that_was_killed_goes_on_from_its_last_epoch(name, interrupt, toys, tmp_path, undisturbed):
    folder = folder_of(tmp_path, "killed")
    with pytest.raises(KeyboardInterrupt):
        train(config_of(toys, name), folder, **interrupt)
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    train(config_of(toys, name), folder, resume=True)
    assert same(outcome(folder), undisturbed(name))


@pytest.mark.parametrize("name", ["cosine", "two stages", "two stages of plateaus"])
def test_a_run_that_was_terminated_goes_on_from_its_last_step(name, toys, tmp_path, undisturbed):
    folder = folder_of(tmp_path, "terminated")
    with pytest.raises(KeyboardInterrupt):
        train(config_of(toys, name), folder, on_step=Interrupt(2, 1, terminate))
    n_steps = int(undisturbed(name)["rows"][0]["step"])
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2 * n_steps + 1
    train(config_of(toys, name), folder, resume=True)
    assert same(outcome(folder), undisturbed(name))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_last_step_of_an_epoch_is_followed_by_its_validation(toys, tmp_path, undisturbed):
    folder = folder_of(tmp_path, "here")
    n_steps = int(undisturbed("cosine")["rows"][0]["step"])
    with pytest.raises(KeyboardInterrupt):
        train(config_of(toys, "cosine"), folder, on_step=Interrupt(1, n_steps, terminate))
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    moved = folder.rename(tmp_path / "there")
    train(config_of(toys, "cosine"), moved, resume=True)
    assert same(outcome(moved), undisturbed("cosine"))


def test_a_finished_run_can_be_made_longer(toys, tmp_path, undisturbed):
    folder = folder_of(tmp_path, "longer")
    train(config_of(toys, "plateau", max_epochs=2), folder)
    train(config_of(toys, "plateau"), folder, resume=True)
    assert same(outcome(folder), undisturbed("plateau"))


def test_a_run_that_stopped_early_stays_stopped(toys, tmp_path):
    folder = folder_of(tmp_path, "early")
    config = config_of(toys, "cosine", early_stopping=2, max_epochs=20)
    config.optimizer.lr = 1e-30
    config.optimizer.ema_decay = 0.0
    assert train(config, folder).n_epochs == 3
    before = outcome(folder)
    assert train(config, folder, resume=True).n_epochs == 3
    assert same(outcome(folder), before)


def test_when_time_is_over_the_best_so_far_becomes_the_model(toys, tmp_path, undisturbed):
    folder = folder_of(tmp_path, "time")
    result = train(config_of(toys, "cosine", max_time=1e-9), folder)
    assert result.n_epochs == 0
    assert (folder / "model.safetensors").is_file()
    train(config_of(toys, "cosine"), folder, resume=True)
    assert same(outcome(folder), undisturbed("cosine"))


def test_long_epochs_are_saved_in_between(toys, tmp_path, undisturbed):
    folder = folder_of(tmp_path, "long")
    with pytest.raises(KeyboardInterrupt):
        train(config_of(toys, "cosine", checkpoint_every=1e-9), folder, on_step=Interrupt(1, 2, ctrl_c))
    n_steps = int(undisturbed("cosine")["rows"][0]["step"])
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert saved == n_steps + 1
    train(config_of(toys, "cosine"), folder, resume=True)
    assert same(outcome(folder), undisturbed("cosine"))

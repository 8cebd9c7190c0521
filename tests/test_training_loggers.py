import importlib.util

import pytest
import torch
from test_training_run import tiny_config

from mmace_sim.errors import ConfigError
from mmace_sim.training import loggers
from mmace_sim.training.trainer import train


def test_tensorboard_gets_the_columns_of_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config(tmp_path, max_epochs=2, loggers=["tensorboard"])
    (tmp_path / "run").mkdir()
    train(config, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"train_loss", "valid_loss", "valid_energy_mae", "lr"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train_loss")] == [0, 1]


def test_wandb_works_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "run").mkdir()
    train(tiny_config(tmp_path, max_epochs=1, loggers=["wandb"]), tmp_path / "run")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_before_the_run_starts(name, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda package: None if package == name else importlib.util)
    with pytest.raises(ConfigError, match=rf"pip install 'mmace-sim\[{name}\]'"):
        train(tiny_config(tmp_path, loggers=[name]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert torch.get_default_dtype() == torch.float32

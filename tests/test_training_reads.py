"""What a step of training makes a GPU wait for, counted on a pretended one."""

import pytest
import torch
from test_training_run import tiny_config

from mmace_sim.testing import HostReads, PretendedGpu
from mmace_sim.testing.pretended import DEVICE, moved_to_pretended
from mmace_sim.training.data.dataset import collate
from mmace_sim.training.module import MagneticTraining
from mmace_sim.training.optim import update_average
from mmace_sim.training.trainer import prepare


@pytest.fixture
def run(tmp_path):
    return prepare(tiny_config(tmp_path))


def test_a_step_waits_at_most_four_times(run):
    """Beside the copy of its batch, one for each of its arrays, which comes before it."""
    with PretendedGpu():
        model = moved_to_pretended(run.model)
        module = MagneticTraining(model, run.config, run.train_set, run.train_set.config_types)
        optimizer = torch.optim.Adam(module.model.parameters())
        for k in range(3):
            batch = collate([run.train_set[k], run.train_set[k + 1]]).to(DEVICE)
            with HostReads() as reads:
                optimizer.zero_grad()
                module.training_step(batch, k).backward()
                torch.nn.utils.clip_grad_norm_(module.model.parameters(), 10.0)
            optimizer.step()  # reads its counts of steps, which torch keeps on the host
            with reads:
                update_average(module.averaged.parameters(), module.model.parameters(), 0.99, k)
            assert reads.total <= 4 + (k == 0), reads.where  # the first one sends the sums of the epoch
        assert module.train_loss() > 0


def test_what_is_known_of_labels_follows_them(run):
    batch = collate([run.train_set[k] for k in range(3)])
    batch.forces[0] = float("nan")
    moved = batch.to("cpu")
    for one in (batch, moved):
        assert one.known("forces").entries.tolist() == list(range(3, 18))
        assert one.known("forces").system_idx.tolist() == [0] * 3 + [1] * 6 + [2] * 6
        assert one.n_labelled == 3
    with HostReads() as reads:
        assert moved.has("forces")
        assert moved.n_labelled == 3
    assert reads.total == 0
    for label in ("energy", "forces", "stress", "magforces"):
        getattr(moved, label)[-2:] = float("nan")  # in place
    assert moved.n_labelled == 2
    assert moved.known("forces").entries.tolist() == list(range(3, 12))
    moved.forces.fill_(float("nan"))
    assert not moved.has("forces")

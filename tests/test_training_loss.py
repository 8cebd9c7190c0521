from itertools import pairwise

import pytest
import torch
from training_toys import write_toys

from mmace_sim.training.config import LossConfig, OptimizerConfig
from mmace_sim.training.dataset import GraphDataset, collate
from mmace_sim.training.frames import LABELS, read_frames
from mmace_sim.training.loss import HuberLoss, MSELoss, TotalLoss, build_loss
from mmace_sim.training.metrics import MetricAccumulator, error_line
from mmace_sim.training.optim import schedule_factor, update_average


@pytest.fixture
def batch(tmp_path):
    frames = read_frames([write_toys(tmp_path / "toys.extxyz", n=3)]).frames
    return collate(list(GraphDataset(frames, 3.0, config_type_weights={"odd": 0.0})))


def shifted(batch, delta):
    return {label: getattr(batch, label) + delta for label in LABELS}


def test_a_perfect_prediction_costs_nothing(batch):
    assert build_loss(LossConfig())(shifted(batch, 0.0), batch).item() == 0.0


def total(kind, label, weight, scale):
    return TotalLoss((kind(label, weight, scale),))


def test_huber_is_quadratic_then_linear(batch):
    loss = total(HuberLoss, "forces", 1.0, 0.1)
    assert loss(shifted(batch, 0.05), batch).item() == pytest.approx(0.125)
    assert loss(shifted(batch, 0.3), batch).item() == pytest.approx(2.5)
    assert total(MSELoss, "forces", 2.0, 0.1)(shifted(batch, 0.3), batch).item() == pytest.approx(9.0)


def test_energy_is_compared_per_atom(batch):
    loss = total(MSELoss, "energy", 1.0, 0.01)
    assert loss(shifted(batch, 0.02), batch).item() == pytest.approx(0.5, rel=1e-6)


def test_structures_of_weight_zero_do_not_count(batch):
    prediction = shifted(batch, 0.0)
    prediction["energy"][1] += 100.0  # the odd one
    assert total(MSELoss, "energy", 1.0, 0.01)(prediction, batch).item() == 0.0


def test_a_label_that_no_structure_has_costs_nothing(batch):
    batch.stress.fill_(float("nan"))
    prediction = shifted(batch, 0.1)
    del prediction["stress"]
    total = build_loss(LossConfig())(prediction, batch)
    assert torch.isfinite(total)
    assert not batch.has("stress")


def test_terms_of_weight_zero_are_left_out():
    config = LossConfig.model_validate({"stress": {"weight": 0.0, "scale": 1.0}, "kind": "mse"})
    loss = build_loss(config)
    assert not loss.needs("stress")
    assert loss.needs("magforces")


def test_errors_in_familiar_units_overall_and_per_config_type(batch):
    metrics = MetricAccumulator(["even", "odd"])
    prediction = shifted(batch, 0.0)
    prediction["energy"] = batch.energy + torch.tensor([0.002, -0.006, 0.004])
    prediction["forces"] = batch.forces + 0.05
    metrics.update(prediction, batch)
    overall = metrics.overall()
    assert overall["energy"].mae == pytest.approx(2.0)
    assert overall["energy"].rmse == pytest.approx((28 / 6) ** 0.5 * 1.0, rel=0.01)
    assert overall["forces"].mae == pytest.approx(50.0)
    assert overall["forces"].count == 18
    assert metrics.by_config_type()["odd"]["energy"].mae == pytest.approx(3.0)
    assert error_line(overall).startswith("E 2.0 meV/atom  F 50.0 meV/Å")


def test_cosine_rises_then_falls():
    factor = schedule_factor(OptimizerConfig(warmup_epochs=2, lr_final=0.1), steps_per_epoch=5, max_epochs=10)
    values = [factor(step) for step in range(51)]
    assert values[0] == pytest.approx(0.1)
    assert max(values) == pytest.approx(1.0) == values[10]
    assert values[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(values[10:]))


def test_average_of_weights_approaches_its_decay():
    averaged, current = [torch.zeros(3)], [torch.ones(3)]
    update_average(averaged, current, decay=0.9, step=0)
    torch.testing.assert_close(averaged[0], torch.full((3,), 0.9))
    averaged = [torch.zeros(3)]
    update_average(averaged, current, decay=0.9, step=10**6)
    torch.testing.assert_close(averaged[0], torch.full((3,), 0.1))

from itertools import pairwise

import pytest
import torch
from training_toys import write_toys

from mmace_sim.errors import ConfigError
from mmace_sim.io.frames import LABELS, read_frames
from mmace_sim.training.config import LossConfig, OptimizerConfig, StageTwoConfig, load_train_config
from mmace_sim.training.data.dataset import GraphDataset, collate
from mmace_sim.training.evaluation.metrics import MetricAccumulator, error_line
from mmace_sim.training.loss import HuberLoss, MSELoss, TotalLoss, build_loss
from mmace_sim.training.optim import schedule_factor, stage_two_lr, update_average


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
    batch.structure_weight.fill_(1.0)
    assert loss(shifted(batch, 0.05), batch).item() == pytest.approx(0.125)
    assert loss(shifted(batch, 0.3), batch).item() == pytest.approx(2.5)
    assert total(MSELoss, "forces", 2.0, 0.1)(shifted(batch, 0.3), batch).item() == pytest.approx(9.0)


def test_energy_is_compared_per_atom(batch):
    loss = total(MSELoss, "energy", 1.0, 0.01)
    batch.structure_weight.fill_(1.0)
    assert loss(shifted(batch, 0.02), batch).item() == pytest.approx(0.5, rel=1e-6)


def test_structures_of_weight_zero_do_not_count(batch):
    prediction = shifted(batch, 0.0)
    prediction["energy"][1] += 100.0  # the odd one
    assert total(MSELoss, "energy", 1.0, 0.01)(prediction, batch).item() == 0.0


def test_weights_act_whatever_else_is_in_the_batch(batch):
    loss = total(MSELoss, "forces", 1.0, 0.1)
    prediction = shifted(batch, 0.1)
    assert loss(prediction, batch).item() == pytest.approx(0.5 * 2 / 3)  # one of three weighs nothing
    batch.structure_weight[:] = 0.25
    assert loss(prediction, batch).item() == pytest.approx(0.5 * 0.25)


def test_sums_of_parts_give_the_loss_of_the_whole(tmp_path):
    samples = GraphDataset(
        read_frames([write_toys(tmp_path / "toys.extxyz", n=5)]).frames, 3.0, config_type_weights={"odd": 3.0}
    )
    samples[3].forces.fill_(float("nan"))
    loss = build_loss(LossConfig())
    parts = [collate([samples[i] for i in part]) for part in ((0, 1, 2), (3,), (4,))]
    sums = sum(loss.sums(shifted(part, 0.03), part) for part in parts)
    whole = collate(list(samples))
    assert loss.total(*sums.T).item() == pytest.approx(loss(shifted(whole, 0.03), whole).item(), rel=1e-12)


def test_weights_by_parts_of_names():
    loss = LossConfig(
        config_type_weights={"strain_*": 8.0, "strain_Fe_?cc": 4.0, "strain_Fe_bcc": 2.0, "[a]": 3.0}
    )
    types = ["strain_Fe_bcc", "strain_Fe_fcc", "Strain", "eos", "[a]"]
    assert list(loss.weights(types).items()) == list(zip(types, [2.0, 8.0, 1.0, 1.0, 3.0], strict=True))


def test_a_second_stage_changes_weights_and_keeps_scales():
    first, second = LossConfig(), build_loss(LossConfig(), {"energy": 50.0, "stress": 0.0})
    assert [(t.label, t.weight, t.scale) for t in second.terms] == [
        ("energy", 50.0, first.energy.scale),
        ("forces", first.forces.weight, first.forces.scale),
        ("magforces", first.magforces.weight, first.magforces.scale),
    ]


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
    assert metrics.by_group()["odd"]["energy"].mae == pytest.approx(3.0)
    assert error_line(overall).startswith("E 2.0 meV/atom  F 50.0 meV/Å")


def test_cosine_rises_then_falls():
    factor = schedule_factor(OptimizerConfig(warmup_epochs=2, lr_final=0.1), steps_per_epoch=5, max_epochs=10)
    values = [factor(step) for step in range(51)]
    assert values[0] == pytest.approx(0.1)
    assert max(values) == pytest.approx(1.0) == values[10]
    assert values[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(values[10:]))


def test_a_second_stage_starts_at_its_own_learning_rate():
    stage = StageTwoConfig(start_epoch=6, lr=0.002)
    factor = schedule_factor(OptimizerConfig(lr=0.01, lr_final=0.1), 5, 10, stage)
    values = [factor(step) for step in range(51)]
    assert values[29] == pytest.approx(0.1, abs=0.02)  # the first stage has come to its end
    assert values[30] == pytest.approx(0.2) == max(values[30:])
    assert values[-1] == pytest.approx(0.02)
    assert schedule_factor(OptimizerConfig(schedule="constant"), 5, 10, stage)(49) == pytest.approx(0.2)
    assert stage_two_lr(OptimizerConfig(lr=0.01), StageTwoConfig(start_epoch=1)) == pytest.approx(0.001)


def test_a_second_stage_must_begin_before_the_end():
    run = {"data": {"train_file": "x"}, "stage_two": {"start_epoch": 300}}
    with pytest.raises(ConfigError, match=r"stage_two\.start_epoch is 300"):
        load_train_config(None, run)


def test_average_of_weights_approaches_its_decay():
    averaged, current = [torch.zeros(3)], [torch.ones(3)]
    update_average(averaged, current, decay=0.9, step=0)
    torch.testing.assert_close(averaged[0], torch.full((3,), 0.9))
    averaged = [torch.zeros(3)]
    update_average(averaged, current, decay=0.9, step=10**6)
    torch.testing.assert_close(averaged[0], torch.full((3,), 0.1))

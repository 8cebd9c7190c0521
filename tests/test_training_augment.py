from dataclasses import replace

import pytest
import torch
from torch.utils.data import Subset
from training_toys import TINY_MODEL, write_toys

from mmace_sim.io.frames import LABELS, read_frames
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.training.config import AugmentConfig
from mmace_sim.training.data.augment import Augment
from mmace_sim.training.data.dataset import GraphDataset
from mmace_sim.training.data.sampling import Share, ShareDataset

KINDS = {
    "joint": AugmentConfig(rotation="joint"),
    "moments": AugmentConfig(rotation="moments"),
    "reversal": AugmentConfig(time_reversal=True),
    "all": AugmentConfig(rotation="joint", time_reversal=True),
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MagneticMACE(ModelConfig(atomic_numbers=[26], max_moment={26: 3.0}, **TINY_MODEL)).double()


@pytest.fixture(scope="module")
def samples(tmp_path_factory, model):
    """Structures labelled by a model that has all symmetries."""
    path = write_toys(tmp_path_factory.mktemp("toys") / "toys.extxyz", n=4)
    found = GraphDataset(read_frames([path]).frames, 3.2)
    labelled = []
    for sample in found:
        labels = evaluate(model, sample.graph)
        labelled.append(replace(sample, **{name: labels[name] for name in LABELS}))
    return labelled


@pytest.mark.parametrize("kind", KINDS)
def test_labels_follow_the_structure(kind, samples, model):
    augment = Augment(KINDS[kind], seed=1)
    changed = 0
    for epoch in range(3):
        turned = augment(samples[0], epoch, 0)
        labels = evaluate(model, turned.graph)
        for name in LABELS:
            torch.testing.assert_close(getattr(turned, name), labels[name], rtol=1e-9, atol=1e-10)
        changed += not torch.allclose(turned.graph.magmoms, samples[0].graph.magmoms)
        moved = not torch.allclose(turned.graph.positions, samples[0].graph.positions)
        assert moved == (KINDS[kind].rotation == "joint")
    assert changed


def test_operations_depend_on_seed_epoch_and_structure_only(samples):
    def moments(seed, epoch, index):
        return Augment(KINDS["moments"], seed)(samples[0], epoch, index).graph.magmoms

    here = moments(3, 5, 7)
    assert torch.equal(here, moments(3, 5, 7))
    for other in (moments(4, 5, 7), moments(3, 6, 7), moments(3, 5, 8)):
        assert not torch.allclose(here, other)


def test_moments_are_reversed_in_every_other_structure(samples):
    augment = Augment(KINDS["reversal"], seed=0)
    signs = [
        float(torch.sign(augment(samples[0], 0, k).graph.magmoms[0, 2] / samples[0].graph.magmoms[0, 2]))
        for k in range(200)
    ]
    assert 70 < signs.count(-1.0) < 130
    assert signs.count(1.0) == 200 - signs.count(-1.0)


def test_missing_labels_stay_missing(samples):
    nothing = torch.full((1, 3, 3), float("nan"), dtype=torch.float64)
    turned = Augment(KINDS["all"], seed=0)(replace(samples[1], stress=nothing), 0, 0)
    assert torch.isnan(turned.stress).all()
    assert torch.isfinite(turned.forces).all()


def test_batches_are_made_of_augmented_structures(samples):
    augment = Augment(KINDS["joint"], seed=2)
    batch = ShareDataset(Subset(samples, range(4)), augment)[Share(epoch=4, indices=(2, 0))]
    expected = torch.cat([augment(samples[i], 4, i).forces for i in (2, 0)])
    assert torch.equal(batch.forces, expected)
    assert AugmentConfig() == AugmentConfig(rotation="none", time_reversal=False)
    assert not Augment(AugmentConfig(), seed=0).acts

"""Random numbers of systems: the published generator, normal, and independent of what else is in a batch."""

import numpy as np
import pytest
import torch
from scipy import stats

from mmace_sim.torchsim.noise import MEASUREMENT, normal_numbers, philox

KNOWN = [  # kat_vectors of Random123, philox4x32 10: counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return tuple(torch.tensor(int(word, 16)) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_the_generator_is_the_published_one(counter, key, result):
    assert philox(words(key), words(counter)) == words(result)


def draw(seeds, counts, step=3, n_columns=5, **how):
    seeds = torch.tensor(seeds)
    idx = torch.arange(len(seeds)).repeat_interleave(torch.tensor(counts))
    steps = torch.full_like(seeds, step)
    return normal_numbers(seeds, steps, idx, n_columns, torch.zeros(1, dtype=torch.float64), **how)


def test_numbers_belong_to_a_system():
    seeds, counts = [7, 2**55 + 1, 12, 7], [4, 1, 3, 2]
    atoms, systems = draw(seeds, counts)
    start = 0
    for k, (seed, count) in enumerate(zip(seeds, counts, strict=True)):
        alone, one = draw([seed], [count])
        assert torch.equal(alone, atoms[start : start + count])
        assert torch.equal(one, systems[k : k + 1])
        start += count
    assert torch.equal(atoms[:2], atoms[-2:])  # the same seed
    assert torch.equal(draw(seeds, counts, n_columns=3)[0], atoms[:, :3])


def test_all_numbers_differ():
    found = [
        draw([s], [50], step, stream=k)[0] for s in (0, 1, 2**32) for step in (0, 1) for k in (0, MEASUREMENT)
    ]
    values = torch.cat([x.flatten() for x in found])
    assert len(values.unique()) == len(values)


def test_numbers_are_normal():
    atoms, systems = draw(list(range(400)), [50] * 400, n_columns=12)
    flat = atoms.flatten().numpy()
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert stats.kstest(systems.numpy(), "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(flat)) < 4 * np.sqrt(24 / len(flat))
    together = np.corrcoef(atoms.numpy().T)
    assert np.abs(together - np.eye(12)).max() < 5 / np.sqrt(len(atoms))
    neighbours = np.corrcoef(atoms[:-1, 0].numpy(), atoms[1:, 0].numpy())[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(len(atoms))

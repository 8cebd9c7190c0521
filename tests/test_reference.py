"""The one-body fit recovers what it was made from."""

import numpy as np
import pytest
import torch

from mmace_sim.model.reference import ReferenceEnergy, ReferenceSample, fit_reference


def landau(m):
    square = (m * m).sum(-1)
    return -0.4 * square + 0.05 * square**2


def samples(rng, *, magforces):
    out = []
    for k in range(30):
        numbers = np.array([26] * (1 + k % 3) + [13] * (k % 2))
        m = rng.normal(size=(len(numbers), 3))
        m *= rng.uniform(0.2, 2.8, size=(len(numbers), 1)) / np.linalg.norm(m, axis=1, keepdims=True)
        m[numbers == 13] = 0
        energy = (-3386.0 * (numbers == 26) - 50.0 * (numbers == 13)).sum() + landau(m).sum()
        square = (m * m).sum(-1, keepdims=True)
        force = -(-0.8 + 0.2 * square) * m
        out.append(ReferenceSample(numbers, m, energy, force if magforces else None))
    return out


@pytest.mark.parametrize("magforces", [True, False])
def test_fit_recovers_a_landau_energy(magforces):
    reference = ReferenceEnergy([1.0, 3.0], 6)
    errors = fit_reference(
        reference, [13, 26], samples(np.random.default_rng(0), magforces=magforces), curvature=1e-6
    )
    assert errors["energy"] < 2e-3
    assert reference.atomic_energies.tolist() == pytest.approx([-50.0, -3386.0], abs=5e-3)
    m = torch.tensor([[0.0, 0.0, x] for x in (0.0, 0.5, 1.5, 2.2)], dtype=torch.float64)
    energy = reference(m, torch.ones(4, dtype=torch.long)) - reference.atomic_energies[1]
    assert energy[0].item() == 0
    assert torch.allclose(energy, landau(m), atol=0.02)


def test_stays_in_float64_and_has_a_convex_wall():
    reference = ReferenceEnergy([2.0], 4).to(torch.float32)
    assert reference.atomic_energies.dtype == torch.float64
    m = torch.zeros(5, 3)
    m[:, 0] = torch.tensor([0.0, 1.9, 2.2, 2.6, 3.0])
    energy = reference(m, torch.zeros(5, dtype=torch.long))
    assert energy[:2].abs().max() == 0
    assert (energy.diff()[1:] > 0).all()
    assert (energy[2:].diff(n=2) > 0).all()

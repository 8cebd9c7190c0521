"""Random numbers that belong to a system and a step: the same in any batch, on any device, after a restart."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

FIRST_DRAW: int = 0
"""Step under which initial velocities are drawn; steps of a simulation count from 1."""

DYNAMICS, MEASUREMENT = 0, 1
"""Streams of numbers: what moves atoms and moments, and what chooses directions to measure along."""


def normal_numbers(
    seeds: Int[Tensor, " n_systems"],
    steps: Int[Tensor, " n_systems"],
    counts: Int[Tensor, " n_systems"],
    n_columns: int,
    like: Tensor,
    *,
    stream: int = DYNAMICS,
) -> tuple[Float[Tensor, "n_atoms n_columns"], Float[Tensor, " n_systems"]]:
    """Standard normal numbers for every atom, and one for every system.

    The generator is the counter-based Philox with the seed of the system as its key and the step as its counter, so
    that it has no state: a simulation that is split, joined with others or continued draws what it would have drawn.

    Args:
        seeds: Of each system.
        steps: Number of the step of each system.
        counts: Number of atoms of each system.
        n_columns: How many numbers each atom needs.
        like: Tensor whose type and device the result has.
        stream: Streams are independent of each other.

    Returns:
        Numbers of the atoms and of the systems.

    References:
        Salmon et al., 10.1145/2063384.2063405.
    """
    atoms, systems = [], []
    for seed, step, count in zip(seeds.tolist(), steps.tolist(), counts.tolist(), strict=True):
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, stream, step]))
        atoms.append(generator.standard_normal((count, n_columns)))
        systems.append(generator.standard_normal())
    to: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    return torch.as_tensor(np.concatenate(atoms), **to), torch.as_tensor(np.array(systems), **to)

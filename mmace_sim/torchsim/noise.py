"""Random numbers that belong to a system and a step: the same in any batch, on any device, after a restart."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

FIRST_DRAW: int = 0
"""Step under which initial velocities are drawn; steps of a simulation count from 1."""

DYNAMICS, MEASUREMENT = 0, 1
"""Streams of numbers: what moves atoms and moments, and what chooses directions to measure along."""

_ROUNDS = 10
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_OF_SYSTEM = _WORD
"""Number that stands in the place of that of an atom where a number belongs to the whole system."""


def normal_numbers(
    seeds: Int[Tensor, " n_systems"],
    steps: Int[Tensor, " n_systems"],
    system_idx: Int[Tensor, " n_atoms"],
    n_columns: int,
    like: Tensor,
    *,
    stream: int = DYNAMICS,
) -> tuple[Float[Tensor, "n_atoms n_columns"], Float[Tensor, " n_systems"]]:
    """Standard normal numbers for every atom, and one for every system, made where the seeds are.

    The generator is the counter-based Philox with the seed of the system as its key and the step, the atom within the
    system and the column as its counter, so that it has no state: a simulation that is split, joined with others or
    continued draws what it would have drawn. The host reads nothing.

    Args:
        seeds: Of each system, below 2⁶³.
        steps: Number of the step of each system, below 2³².
        system_idx: System of each atom, ascending.
        n_columns: How many numbers each atom needs.
        like: Tensor whose type and device the result has.
        stream: Streams are independent of each other.

    Returns:
        Numbers of the atoms and of the systems.

    References:
        Salmon et al., 10.1145/2063384.2063405 (Philox 4x32-10); Box and Muller, 10.1214/aoms/1177706645.
    """
    n_atoms, device = len(system_idx), seeds.device
    number = torch.arange(n_atoms, device=device)
    first = torch.full_like(seeds, n_atoms).scatter_reduce(0, system_idx, number, "amin")
    blocks = torch.arange(-(-n_columns // 2), device=device).expand(n_atoms, -1)
    atoms = _pairs(
        seeds[system_idx, None],
        steps[system_idx, None],
        (number - first[system_idx])[:, None],
        blocks,
        stream,
    )
    whole = torch.full_like(seeds, _OF_SYSTEM)
    systems = _pairs(seeds, steps, whole, torch.zeros_like(seeds), stream)
    return atoms.flatten(1)[:, :n_columns].to(like), systems[:, 0].to(like)


def _pairs(
    seeds: Tensor, steps: Tensor, atoms: Tensor, blocks: Tensor, stream: int
) -> Float[Tensor, "... 2"]:
    """Two independent normal numbers for each counter, in float64."""
    counter = (blocks, atoms, steps, torch.full_like(steps, stream))
    words = philox((seeds & _WORD, (seeds >> 32) & _WORD), counter)
    radius, angle = (_uniform(words[k], words[k + 1]) for k in (0, 2))
    length = (-2.0 * radius.log()).sqrt()
    angle = 2.0 * math.pi * angle
    return torch.stack([length * angle.cos(), length * angle.sin()], dim=-1)


def _uniform(high: Tensor, low: Tensor) -> Tensor:
    """Numbers within (0, 1) of 53 random bits."""
    return ((high >> 5) * 2.0**26 + (low >> 6) + 0.5) * 2.0**-53


def philox(key: tuple[Tensor, Tensor], counter: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Philox 4x32-10: four random words of 32 bits for each key and counter.

    Args:
        key: Two words, as int64.
        counter: Four words, as int64; all are broadcast.

    Returns:
        Four words, as int64.

    References:
        Salmon et al., 10.1145/2063384.2063405.
    """
    a, b, c, d = counter
    low, high = key
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # overflow keeps all 64 bits
        a, b, c, d = (
            ((second >> 32) & _WORD) ^ b ^ low,
            second & _WORD,
            ((first >> 32) & _WORD) ^ d ^ high,
            first & _WORD,
        )
        low, high = (low + _WEYL[0]) & _WORD, (high + _WEYL[1]) & _WORD
    return a, b, c, d

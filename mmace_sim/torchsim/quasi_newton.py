"""The memory of L-BFGS over the moments of many structures: each system has its own, in arrays of the whole batch."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MEMORY: int = 8
"""Number of steps that a system remembers."""

FIRST_SOFTNESS: float = 0.2
"""μB²/eV: inverse stiffness of a moment before any is measured."""

_TINY = 1e-30


def dot_per_system(
    a: Float[Tensor, "n_atoms ..."],
    b: Float[Tensor, "n_atoms ..."],
    system_idx: Int[Tensor, " n_atoms"],
    n_systems: int,
) -> Float[Tensor, "n_systems ..."]:
    """Scalar products of each system, summed over its atoms and the last axis.

    Args:
        a: Vectors of each atom.
        b: Vectors of each atom.
        system_idx: System of each atom.
        n_systems: Number of systems.
    """
    products = (a * b).sum(dim=-1)
    return products.new_zeros(n_systems, *products.shape[1:]).index_add(0, system_idx, products)


def remember(
    history: Float[Tensor, "n_atoms n_memory 3"],
    latest: Float[Tensor, "n_atoms 3"],
    chosen: Bool[Tensor, " n_atoms"],
) -> Float[Tensor, "n_atoms n_memory 3"]:
    """The history with one more step, the latest first, of the atoms that are chosen.

    Args:
        history: Steps so far; zero where empty.
        latest: The step.
        chosen: Atoms whose history takes it.
    """
    longer = torch.cat([latest[:, None], history[:, :-1]], dim=1)
    return torch.where(chosen[:, None, None], longer, history)


def newton_step(
    magforces: Float[Tensor, "n_atoms 3"],
    changes: Float[Tensor, "n_atoms n_memory 3"],
    responses: Float[Tensor, "n_atoms n_memory 3"],
    system_idx: Int[Tensor, " n_atoms"],
    n_systems: int,
) -> Float[Tensor, "n_atoms 3"]:
    """(∂²E/∂m∂m)⁻¹ times the magforces, as far as the history knows it: the two-loop recursion.

    Args:
        magforces: In eV/μB.
        changes: Last changes of the moments, the latest first, in μB; zero where empty.
        responses: What they took from the magforces, in eV/μB.
        system_idx: System of each atom.
        n_systems: Number of systems.

    Returns:
        Change of the moments, in μB.

    References:
        Nocedal, 10.1090/S0025-5718-1980-0572855-7.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return dot_per_system(a, b, system_idx, n_systems)

    products = dot(changes, responses)
    weights = torch.where(products > 0, 1.0 / products.clamp(min=_TINY), 0.0).to(magforces.dtype)
    direction, parts = magforces, []
    for k in range(changes.shape[1]):
        parts.append(weights[:, k] * dot(changes[:, k], direction))
        direction = direction - parts[k][system_idx, None] * responses[:, k]
    square = dot(responses[:, 0], responses[:, 0])
    softness = torch.where(weights[:, 0] > 0, products[:, 0] / square.clamp(min=_TINY), FIRST_SOFTNESS)
    direction = direction * softness.to(magforces.dtype)[system_idx, None]
    for k in reversed(range(changes.shape[1])):
        part = parts[k] - weights[:, k] * dot(responses[:, k], direction)
        direction = direction + part[system_idx, None] * changes[:, k]
    return direction

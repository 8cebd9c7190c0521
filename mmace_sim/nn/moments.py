"""Magnetic moments as features: smooth saturation and a basis in m·m (never |m|)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

SATURATION_RATIO: float = 1.25
"""Moments saturate at this multiple of the largest moment of the training data."""


def saturate(
    magmoms: Float[Tensor, "n_atoms 3"], max_moment: Float[Tensor, " n_atoms"]
) -> Float[Tensor, "n_atoms 3"]:
    """Moments in units of `max_moment`, shortened smoothly to at most :data:`SATURATION_RATIO`.

    m̃ = (m/m_max) [1 + (m·m / (s m_max)²)³]^(−1/6): the identity for small moments (relative change 2e-3 at half of
    m_max), a bounded vector for large ones, and analytic in the components of m everywhere.

    Args:
        magmoms: Moments, in μB.
        max_moment: Largest moment that the model was made for, of each atom's element, in μB.
    """
    scaled = magmoms / max_moment[:, None]
    square = (scaled * scaled).sum(dim=-1, keepdim=True)
    return scaled * (1.0 + (square / SATURATION_RATIO**2) ** 3) ** (-1.0 / 6.0)


def moment_basis(scaled: Float[Tensor, "n_atoms 3"], num_basis: int) -> Float[Tensor, "n_atoms n_basis"]:
    """Chebyshev polynomials T₁ … of 1 − 2 m̃·m̃/s², shifted to vanish for a zero moment.

    Args:
        scaled: Saturated moments from :func:`saturate`.
        num_basis: Number of functions.
    """
    return chebyshev(1.0 - 2.0 * (scaled * scaled).sum(dim=-1) / SATURATION_RATIO**2, num_basis) - 1.0


def chebyshev(x: Float[Tensor, " n"], num_basis: int) -> Float[Tensor, "n n_basis"]:
    """Chebyshev polynomials T₁ … of any argument.

    Args:
        x: Argument.
        num_basis: Number of functions.
    """
    values = [torch.ones_like(x), x]
    for _ in range(num_basis - 1):
        values.append(2.0 * x * values[-1] - values[-2])
    return torch.stack(values[1 : num_basis + 1], dim=-1)


class MomentGate(nn.Module):
    """Channel factors 1 + Σ_n w_zn t_n(m·m) that make features depend on the length of an atom's moment.

    Args:
        n_species: Number of elements.
        num_basis: Number of basis functions t_n.
        n_channels: Number of channels.
    """

    def __init__(self, n_species: int, num_basis: int, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_species, num_basis, n_channels) * 0.3 / num_basis**0.5)

    def forward(
        self, basis: Float[Tensor, "n_atoms n_basis"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_channels"]:
        """The factors of each atom."""
        if self.weight.shape[0] == 1:
            return 1.0 + basis @ self.weight[0]
        return 1.0 + torch.bmm(basis[:, None], self.weight[species])[:, 0]

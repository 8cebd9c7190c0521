"""Radial basis and cutoff."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def polynomial_cutoff(
    lengths: Float[Tensor, "n_edges 1"], r_max: float, p: int
) -> Float[Tensor, "n_edges 1"]:
    """Envelope that is 1 at zero and vanishes with two derivatives at `r_max`.

    Args:
        lengths: Distances, in Å.
        r_max: Cutoff radius, in Å.
        p: Order; larger keeps the envelope near 1 for longer.

    References:
        Gasteiger et al., arXiv 2003.03123, eq. 8.
    """
    x = lengths / r_max
    envelope = (
        1.0 - 0.5 * (p + 1) * (p + 2) * x**p + p * (p + 2) * x ** (p + 1) - 0.5 * p * (p + 1) * x ** (p + 2)
    )
    return torch.where(x < 1.0, envelope, torch.zeros_like(envelope))


def bessel_frequencies(r_max: float, num_bessel: int) -> Float[Tensor, " n_radial"]:
    """Frequencies n π / r_max for n = 1 … `num_bessel`, in 1/Å and float64."""
    return torch.arange(1, num_bessel + 1, dtype=torch.float64) * math.pi / r_max


class RadialBasis(nn.Module):
    """Spherical Bessel functions times the polynomial cutoff.

    Args:
        r_max: Cutoff radius, in Å.
        num_bessel: Number of functions.
        num_polynomial_cutoff: Order of the cutoff.

    References:
        Gasteiger et al., arXiv 2003.03123, eq. 7.
    """

    frequencies: Tensor

    def __init__(self, r_max: float, num_bessel: int, num_polynomial_cutoff: int) -> None:
        super().__init__()
        self.r_max = r_max
        self.p = num_polynomial_cutoff
        self.register_buffer("frequencies", bessel_frequencies(r_max, num_bessel), persistent=False)

    def forward(self, lengths: Float[Tensor, "n_edges 1"]) -> Float[Tensor, "n_edges n_radial"]:
        """Values of the basis at distances in Å."""
        bessel = math.sqrt(2.0 / self.r_max) * torch.sin(lengths * self.frequencies) / lengths
        return bessel * polynomial_cutoff(lengths, self.r_max, self.p)

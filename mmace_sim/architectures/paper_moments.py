"""Moments as the published architecture sees them: Chebyshev functions of |m|² and solid harmonics of m."""

import math

from jaxtyping import Float
from torch import Tensor

from mmace_sim.nn.angular import solid_harmonics
from mmace_sim.nn.moments import chebyshev

SATURATION_ONSET: float = 0.95
"""Share of the largest moment up to which saturated moments are exactly as given."""


def squared_ratio(
    magmoms: Float[Tensor, "n_atoms 3"], max_moment: Float[Tensor, " n_atoms"]
) -> Float[Tensor, " n_atoms"]:
    """|m|²/m_max², smooth through m = 0.

    Args:
        magmoms: Moments, in μB.
        max_moment: Largest moment of each atom's element, in μB.
    """
    return (magmoms * magmoms).sum(dim=-1) / max_moment**2


def saturate_outside(
    magmoms: Float[Tensor, "n_atoms 3"], max_moment: Float[Tensor, " n_atoms"]
) -> Float[Tensor, "n_atoms 3"]:
    """Moments unchanged up to 0.95 `max_moment`, shortened smoothly above, and never longer than `max_moment`.

    With u = |m|/m_max > a = :data:`SATURATION_ONSET` and t = (u − a)/(1 − a), the length becomes
    m_max [a + (1 − a) t (1 + t⁴)^(−1/4)], with four continuous derivatives at a.

    Args:
        magmoms: Moments, in μB.
        max_moment: Largest moment of each atom's element, in μB.
    """
    onset, width = SATURATION_ONSET, 1.0 - SATURATION_ONSET
    ratio = squared_ratio(magmoms, max_moment).clamp(min=onset**2).sqrt()
    t = (ratio - onset) / width
    length = onset + width * t * (1.0 + t**4) ** -0.25
    return magmoms * (length / ratio)[:, None]


def moment_harmonics(
    magmoms: Float[Tensor, "n_atoms 3"], max_ell: int
) -> Float[Tensor, "n_atoms n_harmonics"]:
    """|m|^l Y_lm(m̂), l = 0 … `max_ell`, orthonormal on the sphere, in e3nn's order of components.

    Args:
        magmoms: Moments, in μB.
        max_ell: Highest degree.
    """
    return solid_harmonics(magmoms, max_ell) / math.sqrt(4.0 * math.pi)


def moment_functions(
    magmoms: Float[Tensor, "n_atoms 3"],
    max_moment: Float[Tensor, " n_atoms"],
    num_basis: int,
    *,
    clamped: bool,
) -> Float[Tensor, "n_atoms n_basis"]:
    """Chebyshev functions of 1 − 2 |m|²/m_max².

    Args:
        magmoms: Moments, in μB.
        max_moment: Largest moment of each atom's element, in μB.
        num_basis: Number of functions.
        clamped: Whether they are constant above the largest moment.
    """
    ratio = squared_ratio(magmoms, max_moment)
    return chebyshev(1.0 - 2.0 * (ratio.clamp(max=1.0) if clamped else ratio), num_basis)

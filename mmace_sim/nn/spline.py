"""Natural cubic splines that are linear in the values at their knots."""

import torch
from jaxtyping import Float
from torch import Tensor


def natural_spline(knots: Float[Tensor, "*sets n_knots"]) -> Float[Tensor, "*sets n_pieces 4 n_knots"]:
    """Coefficients of 1, t, t², t³ on each piece, for every knot value, with t from the beginning of the piece.

    The second derivative is zero at both ends (de Boor, A Practical Guide to Splines, chapter IV).

    Args:
        knots: Ascending knots, at least two.
    """
    n_knots = knots.shape[-1]
    values = torch.eye(n_knots, dtype=knots.dtype, device=knots.device).expand(*knots.shape, n_knots)
    width = knots.diff(dim=-1)
    rise = values.diff(dim=-2) / width[..., None]
    # half of the second derivatives: zero at both ends, and continuous slopes between
    system, right = values.clone(), torch.zeros_like(values)
    inner = torch.arange(1, n_knots - 1)
    system[..., inner, inner - 1] = width[..., :-1]
    system[..., inner, inner] = 2.0 * (width[..., :-1] + width[..., 1:])
    system[..., inner, inner + 1] = width[..., 1:]
    right[..., 1:-1, :] = 3.0 * rise.diff(dim=-2)
    half = torch.linalg.solve(system, right)
    slopes = rise - width[..., None] * (2.0 * half[..., :-1, :] + half[..., 1:, :]) / 3.0
    bends = half.diff(dim=-2) / (3.0 * width[..., None])
    return torch.stack([values[..., :-1, :], slopes, half[..., :-1, :], bends], dim=-2)

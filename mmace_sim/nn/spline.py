"""Natural cubic splines that are linear in the values at their knots."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def natural_spline(n_knots: int) -> Float[Tensor, "n_pieces 4 n_knots"]:
    """Coefficients of 1, t, t², t³ on each piece, for every knot value, with t from 0 to 1 on a piece.

    Args:
        n_knots: Number of equidistant knots, at least two.
    """
    values = np.eye(n_knots)
    # half of the second derivatives: zero at both ends, and continuous slopes between
    system, right = np.eye(n_knots), np.zeros((n_knots, n_knots))
    for k in range(1, n_knots - 1):
        system[k, k - 1 : k + 2] = [1.0, 4.0, 1.0]
        right[k] = 3.0 * (values[k + 1] - 2.0 * values[k] + values[k - 1])
    half = np.linalg.solve(system, right)
    slopes = np.diff(values, axis=0) - (2.0 * half[:-1] + half[1:]) / 3.0
    return torch.from_numpy(np.stack([values[:-1], slopes, half[:-1], np.diff(half, axis=0) / 3.0], axis=1))

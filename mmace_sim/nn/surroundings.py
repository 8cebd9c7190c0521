"""What an atom has around it as a short row of invariants, the same for every model: no weights, no training."""

import math
from functools import lru_cache

import torch
from ase.data import covalent_radii
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.nn.angular import solid_harmonics
from mmace_sim.nn.ops import NeighborLayout

N_SHELLS: int = 4
"""Gaussian shells, evenly between the shares `FIRST_SHELL` and `LAST_SHELL` of the cutoff."""
FIRST_SHELL: float = 0.35
LAST_SHELL: float = 0.95
SHELL_WIDTH: float = 0.6
"""Standard deviation of a shell over the distance to the next."""
MAX_ELL: int = 3
N_CODES: int = 3
"""Numbers that stand for an element."""
N_SURROUNDINGS: int = N_SHELLS * (1 + MAX_ELL + 4 + 2 * N_CODES) + 1
"""Length of the row."""

_HARMONICS = (MAX_ELL + 1) ** 2


@lru_cache
@torch.inference_mode(mode=False)
def element_codes(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n_elements n_codes"]:
    """Numbers that stand for an element: a small one next to others of its kind, no two alike.

    Args:
        dtype: Floating-point type.
        device: Where they are needed.
    """
    z = torch.arange(len(covalent_radii), dtype=torch.float64)
    radii = torch.as_tensor(covalent_radii, dtype=torch.float64)
    # neighbours in the periodic system differ by about one radian
    return torch.stack([radii, torch.sin(z), torch.cos(z)], dim=1).to(dtype=dtype, device=device)


def surroundings(
    vectors: Float[Tensor, "n_edges 3"],
    edge_index: Int[Tensor, "2 n_edges"],
    atomic_numbers: Int[Tensor, " n_atoms"],
    magmoms: Float[Tensor, "n_atoms 3"],
    r_max: float,
) -> Float[Tensor, "n_atoms n_surroundings"]:
    """Invariants of the neighbours of every atom, shell by shell.

    With shells φ_n(r), which vanish at the cutoff: the densities Σ_j φ_n and |Σ_j φ_n Y_l(r̂_ij)|; of the moments
    Σ_j φ_n m_i·m_j, Σ_j φ_n m_j², |Σ_j φ_n (m_i·m_j) r̂_ij| and [Σ_j φ_n |m_i × m_j|²]^½; of the elements, with
    their codes c, Σ_j φ_n c_j and Σ_j φ_n (c_j − c_i)²; and |m_i|. They do not change when all positions or all
    moments are rotated, inverted or reversed, each apart from the other. Unlike features of a network, they do not
    forget what its training data had no use for, and do not saturate.

    Args:
        vectors: From the centre to the neighbour, in Å.
        edge_index: Both atoms of each pair (sender, receiver), sorted by the receiver, which is the centre.
        atomic_numbers: Elements.
        magmoms: Moments, in μB.
        r_max: Cutoff radius, in Å; longer pairs do not count.

    Returns:
        One row for each atom, of `N_SURROUNDINGS` numbers.
    """
    layout = NeighborLayout.build(edge_index[1], len(magmoms), vectors.dtype)
    vectors, sender, receiver = layout.arrange(vectors, *edge_index)
    lengths = torch.linalg.norm(vectors, dim=1, keepdim=True)
    directions = vectors / lengths
    first, second = magmoms[receiver], magmoms[sender]
    products = (first * second).sum(dim=1, keepdim=True)
    squares = (second * second).sum(dim=1, keepdim=True)
    crossed = torch.linalg.cross(first, second).square().sum(dim=1, keepdim=True)
    codes = element_codes(vectors.dtype, vectors.device)[atomic_numbers]
    basis = torch.cat(
        [
            solid_harmonics(directions, MAX_ELL),
            products,
            squares,
            crossed,
            products * directions,
            codes[sender],
            (codes[sender] - codes[receiver]).square(),
        ],
        dim=1,
    )
    sums = layout.sum_neighbors(_shells(lengths, r_max) * layout.mask, basis)
    n = _HARMONICS
    degrees = [
        sums[:, :, ell**2 : (ell + 1) ** 2].norm(dim=2) / math.sqrt(2 * ell + 1)
        for ell in range(1, MAX_ELL + 1)
    ]
    rows = [sums[:, :, 0], *degrees, sums[:, :, n], sums[:, :, n + 1], sums[:, :, n + 2].clamp(min=0).sqrt()]
    rows += [sums[:, :, n + 3 : n + 6].norm(dim=2), sums[:, :, n + 6 :].flatten(1)]
    return torch.cat([*rows, torch.linalg.norm(magmoms, dim=1, keepdim=True)], dim=1)


def column_sizes(
    rows: Float[Tensor, "n_atoms n_surroundings"],
) -> Float[Tensor, " n_surroundings"]:
    """An order of magnitude for each number of the rows, as a mean over atoms, whether they have any of it or not.

    Of |Σ φ Y_l| and of codes Σ φ, of whatever is of two moments Σ φ m_j².

    Args:
        rows: From `surroundings`.
    """
    means = rows.abs().mean(dim=0)
    density, squares = means[:N_SHELLS], means[(2 + MAX_ELL) * N_SHELLS : (3 + MAX_ELL) * N_SHELLS]
    columns = [
        density.repeat(1 + MAX_ELL),
        squares.repeat(4),
        density.repeat_interleave(2 * N_CODES),
        means[-1:],
    ]
    return torch.cat(columns)


def _shells(lengths: Float[Tensor, "n_edges 1"], r_max: float) -> Float[Tensor, "n_edges n_shells"]:
    """Gaussians that fade out towards the cutoff."""
    x = lengths / r_max
    step = (LAST_SHELL - FIRST_SHELL) / (N_SHELLS - 1)
    centres = FIRST_SHELL + step * torch.arange(N_SHELLS, dtype=x.dtype, device=x.device)
    fading = (1.0 - (x * x).clamp(max=1.0)).square()
    return torch.exp(-0.5 * ((x - centres) / (SHELL_WIDTH * step)).square()) * fading

"""Real spherical harmonics and their couplings, in the component order and phase of e3nn."""

import itertools
import math
from functools import lru_cache

import mace  # noqa: F401  (lets e3nn 0.4.4 read its constants on torch ≥ 2.6)
import numpy as np
import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor


def spherical_harmonics(
    vectors: Float[Tensor, "n_edges 3"], lengths: Float[Tensor, "n_edges 1"], max_ell: int
) -> Float[Tensor, "n_edges n_harmonics"]:
    """Harmonics l = 0 … `max_ell` of the directions, 'component' normalised: Σ_m Y_lm² = 2l + 1.

    Args:
        vectors: Vectors, in Å.
        lengths: Their lengths, in Å, not zero.
        max_ell: Highest degree.
    """
    return solid_harmonics(vectors / lengths, max_ell)


def solid_harmonics(vectors: Float[Tensor, "n 3"], max_ell: int) -> Float[Tensor, "n n_harmonics"]:
    """Solid harmonics |v|^l Y_lm for l = 0 … `max_ell`, 'component' normalised; polynomials, smooth at v = 0.

    Each degree is the coupling of the one below with the vector itself: three operations a degree that
    autograd can differentiate twice at little cost.

    Args:
        vectors: Vectors, of any unit.
        max_ell: Highest degree.
    """
    degrees = [torch.ones_like(vectors[:, :1])]
    for ell in range(max_ell):
        products = (degrees[-1][:, :, None] * vectors[:, None, :]).flatten(1)
        degrees.append(products @ _raising(ell, vectors.dtype, vectors.device))
    return torch.cat(degrees, dim=1)


@lru_cache
def _raising(ell: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix that takes the products of Y_l and a vector to Y_{l+1}, both in e3nn's normalisation and sign."""
    coupling = clebsch_gordan(ell, 1, ell + 1).flatten(0, 1)
    vector = torch.tensor([[0.36, 0.48, 0.8]], dtype=torch.float64)
    low, high = (
        o3.spherical_harmonics(degree, vector, normalize=False, normalization="component")
        for degree in (ell, ell + 1)
    )
    raised = (low[:, :, None] * vector[:, None, :]).flatten(1) @ coupling
    return (coupling * (raised * high).sum() / (raised * raised).sum()).to(dtype=dtype, device=device)


def degree_slice(ell: int) -> slice:
    """Components of degree `ell` in a concatenation of all degrees from zero."""
    return slice(ell * ell, (ell + 1) ** 2)


def split_degrees(features: Float[Tensor, "..."], max_ell: int) -> tuple[Tensor, ...]:
    """Split a last axis of all degrees into degrees 0 … `max_ell`; higher ones are left out.

    One split costs one copy in the backward pass, a slice for each degree would fill the whole array each time.
    """
    sizes = [2 * ell + 1 for ell in range(max_ell + 1)]
    return features.split([*sizes, features.shape[-1] - sum(sizes)], dim=-1)[:-1]


@lru_cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> Tensor:
    """Real coupling coefficients of shape (2l₁+1, 2l₂+1, 2l₃+1) in float64, with Σ C² = 2l₃ + 1."""
    return o3.wigner_3j(l1, l2, l3, dtype=torch.float64) * math.sqrt(2 * l3 + 1)


@lru_cache
def symmetric_couplings(max_ell: int, correlation: int, ell: int) -> Tensor:
    """A basis of all symmetric couplings of `correlation` equal arguments to degree `ell`.

    The arguments hold degrees 0 … `max_ell` with parity (−1)^l, and the result has parity (−1)^ell.
    Linearly dependent couplings are removed, so that the number of weights is minimal
    (the symmetric contraction of MACE, arXiv 2206.07697 eq. 10, in a complete but not over-complete basis).

    Args:
        max_ell: Highest degree of the arguments.
        correlation: Number of arguments ν, 1 to 3.
        ell: Degree of the result.

    Returns:
        Tensor of shape (n_paths, 2·ell+1, n, …, n) with `correlation` axes of n = (max_ell+1)², float64.
    """
    n = (max_ell + 1) ** 2
    candidates = [t for _, parity, t in _couplings(max_ell, correlation, ell) if parity == (-1) ** ell]
    axes = range(1, correlation + 1)
    symmetric = [
        sum(np.transpose(t, (0, *perm)) for perm in itertools.permutations(axes)) for t in candidates
    ]
    basis: list[np.ndarray] = []
    for tensor in symmetric:
        flat = tensor.ravel()
        norm = np.linalg.norm(flat)
        for _ in range(2):  # Gram–Schmidt, twice for accuracy
            for b in basis:
                flat = flat - (b @ flat) * b
        if norm > 1e-8 and np.linalg.norm(flat) > 1e-6 * norm:
            basis.append(flat / np.linalg.norm(flat))
    scale = math.sqrt(2 * ell + 1)
    shape = (len(basis), 2 * ell + 1, *[n] * correlation)
    return torch.from_numpy(np.stack(basis) * scale).reshape(shape)


def _couplings(max_ell: int, correlation: int, only: int | None = None) -> list[tuple[int, int, np.ndarray]]:
    """All couplings (degree, parity, tensor) of `correlation` arguments, or those to one degree."""
    n = (max_ell + 1) ** 2
    single = []
    for ell in range(max_ell + 1):
        tensor = np.zeros((2 * ell + 1, n))
        tensor[:, degree_slice(ell)] = np.eye(2 * ell + 1)
        single.append((ell, (-1) ** ell, tensor))
    if correlation == 1:
        return [s for s in single if only in (None, s[0])]
    result = []
    for l1, p1, t1 in _couplings(max_ell, correlation - 1):
        for l2, p2, t2 in single:
            for l3 in range(abs(l1 - l2), l1 + l2 + 1):
                if only in (None, l3):
                    c = np.einsum("abc,a...->bc...", clebsch_gordan(l1, l2, l3).numpy(), t1)
                    result.append((l3, p1 * p2, np.einsum("bc...,bj->c...j", c, t2)))
    return result

"""Real spherical harmonics and their couplings, in the component order and phase of e3nn."""

import itertools
import math
from fractions import Fraction
from functools import lru_cache, reduce
from math import factorial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmace_sim.nn.shapes import ShapesOnly

_OPPOSITE: frozenset[tuple[int, int, int]] = frozenset(
    [(1, ell, ell) for ell in range(2, 9)]
    + [(3, 4, 6), (3, 5, 7), (3, 6, 8), (4, 4, 5), (4, 5, 6), (4, 6, 7), (4, 7, 8)]
    + [(5, 5, 5), (5, 6, 6), (5, 7, 7), (5, 8, 8)]
)
"""Couplings (ascending degrees) that e3nn's table has with the sign opposite to that of Condon and Shortley."""


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
@torch.inference_mode(mode=False)
def _raising(ell: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix that takes the products of Y_l and a vector to Y_{l+1}, both in e3nn's normalisation and sign."""
    coupling = clebsch_gordan(ell, 1, ell + 1)
    # on the polar axis, which is y, only the middle component is not zero: √(2l + 1)
    pole = math.sqrt((2 * ell + 1) * 3) * coupling[ell, 1, ell + 1]
    raised = coupling.flatten(0, 1) * (math.sqrt(2 * ell + 3) / pole)
    return (math.sqrt(3.0) * raised).to(dtype=dtype, device=device)


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
@torch.inference_mode(mode=False)
def clebsch_gordan(l1: int, l2: int, l3: int) -> Tensor:
    """Real coupling coefficients of shape (2l₁+1, 2l₂+1, 2l₃+1) in float64, with Σ C² = 2l₃ + 1.

    Degrees up to 8 have the signs of e3nn 0.4, in which weights of models are stored.
    """
    complex_ones = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1, m2 in itertools.product(range(-l1, l1 + 1), range(-l2, l2 + 1)):
        if abs(m1 + m2) <= l3:
            complex_ones[l1 + m1, l2 + m2, l3 + m1 + m2] = _racah(l1, m1, l2, m2, l3)
    # real by the factor (−i)^l in each basis change
    first, second, third = (_to_complex(ell) for ell in (l1, l2, l3))
    real = np.einsum("ai,bj,ck,abc->ijk", first, second, third.conj(), complex_ones).real
    sign = -1.0 if tuple(sorted((l1, l2, l3))) in _OPPOSITE else 1.0
    return torch.from_numpy(sign * real)


def _racah(l1: int, m1: int, l2: int, m2: int, l3: int) -> float:
    """⟨l₁ m₁ l₂ m₂ | l₃ m₁+m₂⟩ by Racah's sum, in exact integers up to the last square root."""
    m3 = m1 + m2
    if l1 + l2 < l3 or abs(l1 - l2) > l3:
        return 0.0
    terms = Fraction(0)
    for k in range(max(0, l2 - l3 - m1, l1 - l3 + m2), min(l1 + l2 - l3, l1 - m1, l2 + m2) + 1):
        below = (k, l1 + l2 - l3 - k, l1 - m1 - k, l2 + m2 - k, l3 - l2 + m1 + k, l3 - l1 - m2 + k)
        terms += Fraction((-1) ** k, math.prod(map(factorial, below)))
    above = (l3 + l1 - l2, l3 - l1 + l2, l1 + l2 - l3, l3 + m3, l3 - m3, l1 - m1, l1 + m1, l2 - m2, l2 + m2)
    square = Fraction((2 * l3 + 1) * math.prod(map(factorial, above)), factorial(l1 + l2 + l3 + 1))
    return math.copysign(math.sqrt(square * terms**2), terms)


def _to_complex(ell: int) -> np.ndarray:
    """Complex harmonics (rows, m = −l … l) in terms of the real ones (columns: sines of −m, then cosines of m)."""
    matrix = np.zeros((2 * ell + 1, 2 * ell + 1), dtype=complex)
    matrix[ell, ell] = 1.0
    for m in range(1, ell + 1):
        matrix[ell - m, [ell + m, ell - m]] = np.array([1.0, -1j]) / math.sqrt(2.0)
        matrix[ell + m, [ell + m, ell - m]] = (-1) ** m * np.array([1.0, 1j]) / math.sqrt(2.0)
    return (-1j) ** ell * matrix


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
        Tensor of shape (n_paths, 2·ell+1, n, …, n) with `correlation` axes of n = (max_ell+1)², float64; zeros of this
        shape, which cost nothing, where only shapes are wanted.
    """
    if not ShapesOnly.active:
        return _symmetric_basis(max_ell, correlation, ell)
    shape = (count_couplings(max_ell, correlation, ell), 2 * ell + 1, *[(max_ell + 1) ** 2] * correlation)
    return torch.zeros((), dtype=torch.float64).expand(shape)


def count_couplings(max_ell: int, correlation: int, ell: int) -> int:
    """How many independent symmetric couplings there are: products with M = l, less those with M = l + 1.

    Args:
        max_ell: Highest degree of the arguments.
        correlation: Number of arguments.
        ell: Degree of the result.
    """
    single = [(m, (-1) ** degree) for degree in range(max_ell + 1) for m in range(-degree, degree + 1)]
    count = 0
    for factors in itertools.combinations_with_replacement(single, correlation):
        if math.prod(parity for _, parity in factors) == (-1) ** ell:
            total = sum(m for m, _ in factors)
            count += (total == ell) - (total == ell + 1)
    return count


@lru_cache
@torch.inference_mode(mode=False)
def _symmetric_basis(max_ell: int, correlation: int, ell: int) -> Tensor:
    """The couplings, by symmetrising all and keeping the independent ones."""
    n = (max_ell + 1) ** 2
    candidates = [t for _, parity, t in _couplings(max_ell, correlation, ell) if parity == (-1) ** ell]
    axes = range(1, correlation + 1)
    symmetric = [
        reduce(np.add, (np.transpose(t, (0, *perm)) for perm in itertools.permutations(axes)))
        for t in candidates
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

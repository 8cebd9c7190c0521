"""Blocks of the network against their definitions."""

import math

import pytest
import torch
from e3nn import o3

from mmace_sim.nn.angular import clebsch_gordan, degree_slice, spherical_harmonics, symmetric_couplings
from mmace_sim.nn.moments import SATURATION_RATIO, moment_basis, saturate
from mmace_sim.nn.ops import Mlp, NeighborLayout
from mmace_sim.nn.product import SymmetricContraction
from mmace_sim.nn.radial import RadialBasis, polynomial_cutoff


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rotation(max_ell: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    R = o3.rand_matrix().double()
    return R, o3.Irreps([(1, (ell, 1)) for ell in range(max_ell + 1)]).D_from_matrix(R)


@pytest.mark.parametrize(("nu", "ell"), [(1, 1), (2, 0), (2, 1), (3, 0), (3, 1)])
def test_couplings_are_equivariant_symmetric_and_independent(nu, ell):
    U = symmetric_couplings(2, nu, ell)
    _, D = rotation(2)
    rotated = U
    for _ in range(nu):
        rotated = torch.tensordot(rotated, D, dims=([2], [0]))  # moves the axis to the end, in order
    out = torch.einsum("Mm,pm...->pM...", D[degree_slice(ell), degree_slice(ell)], U)
    assert torch.allclose(rotated, out, atol=1e-10)
    if nu == 3:
        assert torch.allclose(U, U.transpose(-1, -2), atol=1e-12)
        assert torch.allclose(U, U.transpose(-1, -3), atol=1e-12)
    assert torch.linalg.matrix_rank(U.flatten(1)) == len(U)


@pytest.mark.parametrize("ell", [0, 1])
@pytest.mark.parametrize("n_species", [1, 2])
def test_contraction_is_the_polynomial_of_its_couplings(ell, n_species):
    torch.manual_seed(0)
    block = SymmetricContraction(2, ell, 3, n_species, 4)
    x, species = torch.randn(5, 4, 9), torch.tensor([0, 1, 1, 0, 1]) % n_species
    w1, w2, w3 = (w[species] for w in block.weights)
    expected = (
        torch.einsum("npk,pma,nka->nkm", w1, symmetric_couplings(2, 1, ell), x)
        + torch.einsum("npk,pmab,nka,nkb->nkm", w2, symmetric_couplings(2, 2, ell), x, x)
        + torch.einsum("npk,pmabc,nka,nkb,nkc->nkm", w3, symmetric_couplings(2, 3, ell), x, x, x)
    )
    assert torch.allclose(block(x, species), expected, atol=1e-12)


@pytest.mark.parametrize("counts", [[3, 3, 3], [0, 5, 2, 9, 1, 1, 0], [4]])
def test_padded_sum_equals_the_plain_sum(counts):
    torch.manual_seed(0)
    receiver = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    layout = NeighborLayout.build(receiver, len(counts), torch.float64)
    weights, basis = torch.randn(len(receiver), 4), torch.randn(len(receiver), 3)
    plain = torch.zeros(len(counts), 4, 3).index_add(0, receiver, weights[:, :, None] * basis[:, None, :])
    padded = layout.sum_neighbors(weights[layout.pairs], basis[layout.pairs] * layout.mask)
    assert torch.allclose(padded, plain, atol=1e-13)


def test_harmonics_have_component_normalisation():
    vectors = torch.randn(7, 3)
    lengths = torch.linalg.norm(vectors, dim=1, keepdim=True)
    Y = spherical_harmonics(vectors, lengths, 4)
    for ell in range(5):
        assert torch.allclose((Y[:, degree_slice(ell)] ** 2).sum(1), torch.tensor(2.0 * ell + 1))
    assert torch.allclose(clebsch_gordan(1, 1, 2).square().sum(), torch.tensor(5.0))


def test_radial_functions_vanish_smoothly_at_the_cutoff():
    r = torch.tensor([[5.0 - 1e-4], [5.0], [5.1]], requires_grad=True)
    values = RadialBasis(5.0, 8, 5)(r)
    assert values[0].abs().max() < 1e-10
    assert values[1:].abs().max() == 0
    assert torch.autograd.grad(values.sum(), r)[0].abs().max() < 1e-6
    assert polynomial_cutoff(torch.tensor([[1e-9]]), 5.0, 5).item() == pytest.approx(1.0)
    assert Mlp([8, 4, 2])(torch.zeros(1, 8)).abs().max() == 0


def test_moments_saturate_smoothly_and_basis_vanishes_at_zero():
    scale = torch.full((4,), 2.0)
    m = torch.tensor([[0.0, 0, 0], [0, 0, 1.0], [0, 0, 2.0], [0, 1e6, 0]], requires_grad=True)
    scaled = saturate(m, scale)
    assert scaled[1, 2].item() == pytest.approx(0.5, rel=1e-3)
    assert scaled[3].norm().item() == pytest.approx(SATURATION_RATIO, rel=1e-6)
    basis = moment_basis(scaled, 6)
    assert basis[0].abs().max() == 0
    assert basis.abs().max() <= 2.0 + 1e-12
    gradient = torch.autograd.grad(basis[0].sum(), m)[0]
    assert gradient.abs().max() == 0
    x = 1 - 2 * scaled[1].square().sum().item() / SATURATION_RATIO**2
    assert basis[1, 3].item() == pytest.approx(math.cos(4 * math.acos(x)) - 1)

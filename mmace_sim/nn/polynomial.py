"""Scalars of the symmetric product as polynomials with fixed coefficients: fast where these are not trained."""

from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmace_sim.nn.ops import element_groups
from mmace_sim.nn.product import SymmetricContraction


class ChannelPolynomial:
    """What a `SymmetricContraction` to degree 0 computes, with atoms as the last axis.

    P(x) = Σ_c x_c (C¹_c + Σ_a C²_ca x_a + Σ_{a≤b} C³_cab x_a x_b) for each channel: one matrix product of the
    coefficients with all monomials. Rows of atoms stand together in memory, so that no element is gathered alone.

    Args:
        contraction: Contraction to degree 0; its weights of now are taken.
    """

    def __init__(self, contraction: SymmetricContraction) -> None:
        if contraction.n_out != 1:
            raise AssertionError("the contraction gives no scalars")
        with torch.no_grad():
            self.coefficients = [_coefficients(contraction, z) for z in range(len(contraction.weights[0]))]
        self.correlation = len(contraction.weights)

    def __call__(
        self, x: Float[Tensor, "n_channels n_in n_atoms"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_channels n_atoms"]:
        """Values for each channel and atom; they can be differentiated by `x`, once.

        Args:
            x: Features of degrees 0 ….
            species: Index of each atom's element.
        """
        if torch.is_grad_enabled() and x.requires_grad:
            return _Differentiable.apply(x, species, self)
        return self.values(x, species, gradients=False)[0]

    def values(
        self,
        x: Float[Tensor, "n_channels n_in n_atoms"],
        species: Int[Tensor, " n_atoms"],
        *,
        gradients: bool = True,
    ) -> tuple[Float[Tensor, "n_channels n_atoms"], Float[Tensor, "n_channels _n_in n_atoms"]]:
        """Values and their gradients.

        Args:
            x: Features of degrees 0 ….
            species: Index of each atom's element.
            gradients: Whether gradients are needed; else they are empty.
        """
        if len(self.coefficients) == 1:
            return self._one_species(x, 0, gradients)
        values = x.new_zeros(x.shape[0], x.shape[2])
        slopes = torch.zeros_like(x) if gradients else x[:, :0]
        for z, members in element_groups(species):
            some, slope = self._one_species(x.index_select(2, members), z, gradients)
            values.index_copy_(1, members, some)
            if gradients:
                slopes.index_copy_(2, members, slope)
        return values, slopes

    def _one_species(
        self, x: Float[Tensor, "n_channels n_in n_atoms"], z: int, gradients: bool
    ) -> tuple[Float[Tensor, "n_channels n_atoms"], Float[Tensor, "n_channels _n_in n_atoms"]]:
        """Coefficients are symmetric in their indices: ∂P/∂x_c = C¹_c + 2 Σ_a C²_ca x_a + 3 Σ_{a≤b} C³_cab x_a x_b."""
        matrix = self.coefficients[z]
        n_channels, n, n_atoms = x.shape
        terms = [matrix[:, :, :1].expand(-1, -1, n_atoms)]
        if self.correlation > 1:
            terms.append(torch.bmm(matrix[:, :, 1 : n + 1], x))
        if self.correlation > 2:
            pairs = x.new_empty(n_channels, n * (n + 1) // 2, n_atoms)
            start = 0
            for a in range(n):
                stop = start + n - a
                torch.mul(x[:, a : a + 1], x[:, a:], out=pairs[:, start:stop])
                start = stop
            terms.append(torch.bmm(matrix[:, :, n + 1 :], pairs))
        values = (x * reduce(torch.add, terms)).sum(dim=1)
        slopes = reduce(torch.add, [k * term for k, term in enumerate(terms, 1)]) if gradients else x[:, :0]
        return values, slopes


class _Differentiable(torch.autograd.Function):
    """Gradients come with the values, at a tenth of what a graph of the monomials would cost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, species: Tensor, polynomial: ChannelPolynomial) -> Tensor:
        values, slopes = polynomial.values(x, species)
        ctx.save_for_backward(slopes)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradient[:, None] * slopes, None, None


def _coefficients(contraction: SymmetricContraction, z: int) -> Float[Tensor, "n_channels n_in n_monomials"]:
    """Columns of 1, x_a and x_a x_b (a ≤ b) for one element."""
    weights = contraction.weights
    columns = [torch.einsum("pk,pj->kj", weights[0][z], contraction.coupling_1)[:, None]]
    if len(weights) > 1:
        columns.append(torch.einsum("pk,pij->kij", weights[1][z], contraction.coupling_2))
    if len(weights) > 2:
        columns.append(torch.einsum("pk,paj->kaj", weights[2][z], contraction.coupling_3))
    return torch.cat(columns, dim=1).transpose(1, 2).contiguous()

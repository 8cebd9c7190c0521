"""Scalars of the symmetric product as polynomials with fixed coefficients: fast where no gradients are needed."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
        """Values for each channel and atom.

        Args:
            x: Features of degrees 0 ….
            species: Index of each atom's element.
        """
        if len(self.coefficients) == 1:
            return self._one_species(x, 0)
        out = x.new_zeros(x.shape[0], x.shape[2])
        for z, members in element_groups(species):
            out.index_copy_(1, members, self._one_species(x.index_select(2, members), z))
        return out

    def _one_species(
        self, x: Float[Tensor, "n_channels n_in n_atoms"], z: int
    ) -> Float[Tensor, "n_channels n_atoms"]:
        matrix = self.coefficients[z]
        n_channels, n, n_atoms = x.shape
        monomials = x.new_empty(n_channels, matrix.shape[2], n_atoms)
        monomials[:, 0] = 1.0
        if self.correlation > 1:
            monomials[:, 1 : n + 1] = x
        if self.correlation > 2:
            start = n + 1
            for a in range(n):
                stop = start + n - a
                torch.mul(x[:, a : a + 1], x[:, a:], out=monomials[:, start:stop])
                start = stop
        return (x * torch.bmm(matrix, monomials)).sum(dim=1)


def _coefficients(contraction: SymmetricContraction, z: int) -> Float[Tensor, "n_channels n_in n_monomials"]:
    """Columns of 1, x_a and x_a x_b (a ≤ b) for one element."""
    weights = contraction.weights
    columns = [torch.einsum("pk,pj->kj", weights[0][z], contraction.coupling_1)[:, None]]
    if len(weights) > 1:
        columns.append(torch.einsum("pk,pij->kij", weights[1][z], contraction.coupling_2))
    if len(weights) > 2:
        columns.append(torch.einsum("pk,paj->kaj", weights[2][z], contraction.coupling_3))
    return torch.cat(columns, dim=1).transpose(1, 2).contiguous()

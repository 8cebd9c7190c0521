"""Symmetric products of node features (MACE's many-body step)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.nn.angular import symmetric_couplings
from mmace_sim.nn.ops import ChannelLinear, Modules, element_groups


class SymmetricContraction(nn.Module):
    """Σ_ν w_zν · (X ⊗ … ⊗ X) coupled to one degree, channel by channel.

    Takes degrees 0 … `max_ell` of natural parity, gives degree `ell`. Evaluated as a polynomial
    x·(c₁ + c₂x + c₃(x x)), with the pairs x_a x_b of a ≤ b only.

    Args:
        max_ell: Highest degree of the argument.
        ell: Degree of the result.
        correlation: Highest order ν, 1 to 3.
        n_species: Number of elements.
        n_channels: Number of channels.

    References:
        Batatia et al., arXiv 2206.07697, eq. 10.
    """

    pair_a: Tensor
    pair_b: Tensor
    coupling_1: Tensor
    coupling_2: Tensor
    coupling_3: Tensor

    def __init__(self, max_ell: int, ell: int, correlation: int, n_species: int, n_channels: int) -> None:
        super().__init__()
        n = (max_ell + 1) ** 2
        a, b = torch.triu_indices(n, n)
        self.register_buffer("pair_a", a, persistent=False)
        self.register_buffer("pair_b", b, persistent=False)
        self.n_out = 2 * ell + 1
        weights = []
        for nu in range(1, correlation + 1):
            coupling = symmetric_couplings(max_ell, nu, ell)
            if nu == 3:
                double = torch.where(a == b, 1.0, 2.0).to(coupling)
                coupling = coupling[:, :, a, b] * double[:, None]
            # (n_paths, ..., n, n_out): the last argument and the result are the columns of a matrix product
            coupling = coupling.movedim(1, -1)
            self.register_buffer(f"coupling_{nu}", coupling.flatten(-2).contiguous(), persistent=False)
            n_paths = coupling.shape[0]
            weights.append(nn.Parameter(torch.randn(n_species, n_paths, n_channels) / math.sqrt(n_paths)))
        self.weights = nn.ParameterList(weights)

    def forward(
        self, x: Float[Tensor, "n_atoms n_channels n_in"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_channels n_out"]:
        """Contract the features of each atom with the weights of its element."""
        n_species = self.weights[0].shape[0]
        x = x.transpose(0, 1).contiguous()
        if n_species == 1:
            return self._one_species(x, 0).transpose(0, 1)
        out = x.new_zeros(x.shape[0], x.shape[1], self.n_out)
        for z, members in element_groups(species):  # of 89 elements, a structure has a few
            out = out.index_copy(1, members, self._one_species(x[:, members], z))
        return out.transpose(0, 1)

    def _one_species(
        self, x: Float[Tensor, "n_channels n_atoms n_in"], z: int
    ) -> Float[Tensor, "n_channels n_atoms n_out"]:
        n_channels, _, n = x.shape
        y = torch.einsum("pk,pj->kj", self.weights[0][z], self.coupling_1)[:, None]
        if len(self.weights) > 1:
            matrix = torch.einsum("pk,pij->kij", self.weights[1][z], self.coupling_2)
            y = torch.baddbmm(y, x, matrix)
        if len(self.weights) > 2:
            tensor = self.weights[2][z].T @ self.coupling_3.flatten(1)
            pairs = x.index_select(-1, self.pair_a) * x.index_select(-1, self.pair_b)
            y = torch.baddbmm(y, pairs, tensor.view(n_channels, len(self.pair_a), -1))
        y = y.view(n_channels, -1, n, self.n_out).expand(-1, x.shape[1], -1, -1)
        return (x[..., None] * y).sum(dim=2)


class ProductBasis(nn.Module):
    """Contractions to every hidden degree, each followed by a channel mixing.

    Args:
        max_ell: Highest degree of the argument.
        hidden_ell: Highest degree of the result (0 or 1).
        correlation: Highest order.
        n_species: Number of elements.
        n_channels: Number of channels.
    """

    def __init__(
        self, max_ell: int, hidden_ell: int, correlation: int, n_species: int, n_channels: int
    ) -> None:
        super().__init__()
        self.contractions = Modules(
            SymmetricContraction(max_ell, ell, correlation, n_species, n_channels)
            for ell in range(hidden_ell + 1)
        )
        self.linears = Modules(ChannelLinear(n_channels, n_channels) for _ in range(hidden_ell + 1))

    def forward(
        self, x: Float[Tensor, "n_atoms n_channels n_in"], species: Int[Tensor, " n_atoms"]
    ) -> list[Tensor]:
        """Features of each hidden degree, of shape (n_atoms, n_channels, 2l + 1)."""
        return [
            linear(contraction(x, species))
            for contraction, linear in zip(self.contractions, self.linears, strict=True)
        ]

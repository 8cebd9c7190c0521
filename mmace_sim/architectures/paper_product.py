"""Many-body products of the published architecture, coupled to the atom's own moment."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.architectures.paper_interaction import coupling_paths
from mmace_sim.nn.angular import clebsch_gordan, degree_slice
from mmace_sim.nn.ops import ChannelLinear, Mlp, Modules
from mmace_sim.nn.product import SymmetricContraction

SELF_MLP: tuple[int, ...] = (64, 64, 64)
"""Widths of the network that weighs the atom's own moment; fixed in the published code."""


class PaperProduct(nn.Module):
    """linear(c ⊗ S(m_i)) + linear(c), with c the symmetric contractions of MACE.

    Args:
        max_ell: Highest degree of the argument.
        out_ell: Highest degree of the result.
        max_m_ell: Highest degree of S(m).
        correlation: Highest order of the contractions.
        n_species: Number of elements.
        n_channels: Number of channels.
        num_moment_basis: Number of Chebyshev functions of the moments.
    """

    def __init__(
        self,
        *,
        max_ell: int,
        out_ell: int,
        max_m_ell: int,
        correlation: int,
        n_species: int,
        n_channels: int,
        num_moment_basis: int,
    ) -> None:
        super().__init__()
        K = n_channels
        self.contractions = Modules(
            SymmetricContraction(max_ell, ell, correlation, n_species, K) for ell in range(out_ell + 1)
        )
        self.paths = coupling_paths(range(out_ell + 1), max_m_ell, out_ell)
        for k, path in enumerate(self.paths):
            coupling = clebsch_gordan(path.source, path.second, path.out)
            self.register_buffer(f"coupling_{k}", coupling, persistent=False)
        self.moment_network = Mlp([num_moment_basis, *SELF_MLP, len(self.paths) * K])
        n_paths = [sum(path.out == ell for path in self.paths) for ell in range(out_ell + 1)]
        self.linears_moment = Modules(ChannelLinear(n * K, K) for n in n_paths)
        self.linears = Modules(ChannelLinear(K, K) for _ in n_paths)

    def forward(
        self,
        x: Float[Tensor, "n_atoms n_channels n_in"],
        moment_basis: Float[Tensor, "n_atoms n_basis"],
        harmonics: Float[Tensor, "n_atoms n_harmonics"],
        species: Int[Tensor, " n_atoms"],
    ) -> list[Tensor]:
        """Features of each degree, of shape (n_atoms, n_channels, 2l + 1).

        Args:
            x: Features of all degrees.
            moment_basis: Chebyshev functions of each atom's moment.
            harmonics: Solid harmonics of each atom's moment.
            species: Index of each atom's element.
        """
        contracted = [contraction(x, species) for contraction in self.contractions]
        weights = self.moment_network(moment_basis).chunk(len(self.paths), dim=1)
        coupled: list[list[Tensor]] = [[] for _ in self.linears]
        for k, path in enumerate(self.paths):
            matrix = torch.einsum(
                "ns,cso->nco", harmonics[:, degree_slice(path.second)], getattr(self, f"coupling_{k}")
            )
            coupled[path.out].append(weights[k][:, :, None] * (contracted[path.source] @ matrix))
        return [
            linear_moment(torch.cat(parts, dim=1)) + linear(c)
            for linear_moment, parts, linear, c in zip(
                self.linears_moment, coupled, self.linears, contracted, strict=True
            )
        ]

"""Sums over neighbours of the published architecture: two channelwise products, with Y(r̂_ij) and with S(m_j)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.nn.angular import clebsch_gordan, degree_slice
from mmace_sim.nn.ops import SILU_NORM, ChannelLinear, Mlp, Modules, NeighborLayout, SpeciesLinear

if TYPE_CHECKING:
    from mmace_sim.architectures.paper_mmace import PaperConfig

DensityKind = Literal["distance", "moment", "gated"]
"""What a message is divided by: 1 + Σ_j ρ(r_ij), 1 + Σ_j ρ(r_ij, |m_j|), or it is multiplied by a gate of the sums of
ρ(r_ij) and of ρ'(|m_j|)."""


@dataclass
class PaperEdges:
    """Geometry and sender's moments of all (padded) neighbour pairs.

    Attributes:
        sender: Atom that each pair brings in.
        radial: Radial basis, zero beyond the cutoff.
        features: Radial basis and, beside it, the Chebyshev functions of the sender's moment.
        couplings: For each degree l of Y(r̂), the products Y_l ⊗ S(m_j), zero on filling and beyond the cutoff.
        mask: 1 for pairs within the cutoff, 0 for others and for filling.
        layout: How the pairs are grouped by centre.
        both_directions: Whether sums are wanted for the reversed moments too, as atoms after the others.
    """

    sender: Int[Tensor, " n_edges"]
    radial: Float[Tensor, "n_edges n_radial"]
    features: Float[Tensor, "n_edges n_features"]
    couplings: list[Float[Tensor, "n_edges _n_products"]]
    mask: Float[Tensor, "n_edges 1"]
    layout: NeighborLayout
    both_directions: bool = False


@dataclass(frozen=True)
class Path:
    """A coupling of one feature with one harmonic.

    Attributes:
        source: Position of the feature in a list of features.
        second: Degree of the harmonic.
        out: Degree of the result.
    """

    source: int
    second: int
    out: int


def coupling_paths(degrees: Sequence[int], max_second: int, max_out: int) -> list[Path]:
    """Couplings of features of natural parity with harmonics to natural parity, ordered by the degree of the result.

    This is the order in which the published code stores its weights.

    Args:
        degrees: Degree of each feature.
        max_second: Highest degree of the harmonics.
        max_out: Highest degree of the results.
    """
    paths = [
        Path(k, second, out)
        for k, first in enumerate(degrees)
        for second in range(max_second + 1)
        for out in range(abs(first - second), min(first + second, max_out) + 1)
        if (first + second + out) % 2 == 0
    ]
    return sorted(paths, key=lambda path: path.out)


class PathLinear(nn.Module):
    """A bias-free linear map to one weight per path and channel.

    Gives one array for each path: one array of all would be cut into pieces, whose gradients have to be joined again.

    Args:
        n_in: Number of features.
        n_paths: Number of paths.
        n_channels: Number of channels.
    """

    def __init__(self, n_in: int, n_paths: int, n_channels: int) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.weight = nn.Parameter(torch.randn(n_in, n_paths * n_channels))

    def forward(self, x: Float[Tensor, "n n_in"]) -> list[Tensor]:
        """Weights of each path, of shape (n, n_channels)."""
        scaled = self.weight / math.sqrt(self.weight.shape[0])
        return [x @ path for path in scaled.split(self.n_channels, dim=1)]


class PaperConvolution(nn.Module):
    """A_i = Σ_j W2 W1 [h_j ⊗ Y(r̂_ij)] ⊗ S(m_j), every pair of paths kept apart.

    The channels of h_j and of both weights only multiply, so what couples is free of channels: with
    T = C (Y ⊗ S), one small tensor for each pair and path, A_i is the matrix product of (W2 W1 h_j) with T over
    the neighbours, and the two channelwise products are never built.

    Args:
        hidden_ell: Highest degree of the incoming features.
        max_ell: Highest degree of Y and of the result.
        max_m_ell: Highest degree of S.
        n_channels: Number of channels.
    """

    def __init__(self, hidden_ell: int, max_ell: int, max_m_ell: int, n_channels: int) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.first = coupling_paths(range(hidden_ell + 1), max_ell, max_ell)
        self.second = coupling_paths([path.out for path in self.first], max_m_ell, max_ell)
        self.n_paths = [sum(path.out == ell for path in self.second) for ell in range(max_ell + 1)]
        for k, path in enumerate(self.second):
            self.register_buffer(f"coupling_{k}", self._coupling(path, max_m_ell), persistent=False)

    def _coupling(self, path: Path, max_m_ell: int) -> Tensor:
        """C of one path, from the products Y_l ⊗ S to the components (of h, of the result)."""
        first = self.first[path.source]
        to_first = clebsch_gordan(first.source, first.second, first.out)
        to_out = clebsch_gordan(first.out, path.second, path.out)
        tensor = to_first.new_zeros(
            2 * first.second + 1, (max_m_ell + 1) ** 2, to_first.shape[0], to_out.shape[2]
        )
        tensor[:, degree_slice(path.second)] = torch.einsum("hya,aso->ysho", to_first, to_out)
        return tensor.flatten(2).flatten(0, 1)

    def forward(
        self,
        sent: Sequence[Float[Tensor, "n_edges _n_comp _n_sent_channels"]],
        first_weights: Sequence[Float[Tensor, "n_edges n_channels"]],
        second_weights: Sequence[Float[Tensor, "n_edges n_channels"]],
        edges: PaperEdges,
    ) -> list[Tensor]:
        """Features of each degree, all paths one after another on the channel axis.

        Args:
            sent: Sender's features of each degree, at each pair; with those for reversed moments as more channels.
            first_weights: W1 of each first path.
            second_weights: W2 of each second path.
            edges: Pairs.
        """
        K = self.n_channels
        copies = [features.unflatten(2, (-1, K)) for features in sent]
        left = [
            weight[:, None, None] * copies[path.source]
            for weight, path in zip(first_weights, self.first, strict=True)
        ]
        out: list[list[Tensor]] = [[] for _ in self.n_paths]
        for k, (weight, path) in enumerate(zip(second_weights, self.second, strict=True)):
            product = left[path.source] * weight[:, None, None]
            tensor = edges.couplings[self.first[path.source].second] @ getattr(self, f"coupling_{k}")
            features = _sum_products(edges.layout, product.flatten(2), tensor)
            if edges.both_directions:  # T is even or odd in the moments, as S is
                features = torch.cat([features[:, :K], (-1.0) ** path.second * features[:, -K:]])
            out[path.out].append(features)
        return [torch.cat(features, dim=1) for features in out]


def _sum_products(
    layout: NeighborLayout,
    left: Float[Tensor, "n_edges n_comp n_channels"],
    right: Float[Tensor, "n_edges n_right"],
) -> Float[Tensor, "n_atoms n_channels n_out"]:
    """Σ over neighbours and components: the components of a pair count as so many neighbours."""
    n = left.shape[1]
    if n > 1:
        layout = replace(layout, groups=[(n_atoms, width * n) for n_atoms, width in layout.groups])
    return layout.sum_neighbors(left.flatten(0, 1), right.reshape(right.shape[0] * n, right.shape[1] // n))


def _by_component(
    features: Float[Tensor, "n_all n_channels n_comp"], n_atoms: int
) -> Float[Tensor, "n_atoms n_comp n_all_channels"]:
    """Channels last, and those of an atom's copies behind each other."""
    return features.unflatten(0, (-1, n_atoms)).permute(1, 3, 0, 2).flatten(2)


class PaperInteraction(nn.Module):
    """One message-passing step of the published architecture.

    Args:
        config: Hyper-parameters of the model.
        first: Whether it is that of the first layer, whose features are scalars and which alone mixes by species.
    """

    def __init__(self, config: "PaperConfig", *, first: bool) -> None:
        super().__init__()
        K, n_features = config.num_channels, config.num_bessel + config.num_moment_basis
        hidden_ell = 0 if first else config.hidden_ell
        density: DensityKind = config.first_density if first else config.later_density
        self.linears_up = Modules(ChannelLinear(K, K) for _ in range(hidden_ell + 1))
        self.convolution = PaperConvolution(hidden_ell, config.max_ell, config.max_m_ell, K)
        self.radial = Mlp([n_features, *config.radial_mlp])
        self.first_weights = PathLinear(config.radial_mlp[-1], len(self.convolution.first), K)
        self.second_weights = PathLinear(n_features, len(self.convolution.second), K)
        self.density = Mlp([n_features if density == "moment" else config.num_bessel, 1])
        gated = density == "gated"
        self.moment_density = Mlp([config.num_moment_basis, 1]) if gated else None
        self.density_gate = Mlp([2, 1]) if gated else None
        self.mix = Modules(ChannelLinear(n * K, K) for n in self.convolution.n_paths)
        n_species = len(config.atomic_numbers)
        self.species_mix = (
            Modules(SpeciesLinear(n_species, K, K) for _ in range(config.max_ell + 1)) if first else None
        )

    def forward(
        self,
        hidden: Sequence[Float[Tensor, "_n_hidden n_channels _n_comp"]],
        species: Int[Tensor, " n_atoms"],
        edges: PaperEdges,
    ) -> Float[Tensor, "n_atoms n_channels n_harmonics"]:
        """Features of degrees 0 … max_ell.

        Args:
            hidden: Features of the layer before; in both directions of the moments, those for the reversed ones
                follow as more atoms. The first layer's do not know the moments and come once.
            species: Index of each element of the result.
            edges: Pairs.
        """
        n_atoms = sum(n for n, _ in edges.layout.groups)
        sent = [
            _by_component(linear(h), n_atoms).index_select(0, edges.sender)
            for linear, h in zip(self.linears_up, hidden, strict=True)
        ]
        hidden_radial = nn.functional.silu(self.radial(edges.features)) * SILU_NORM
        sums = self.convolution(
            sent, self.first_weights(hidden_radial), self.second_weights(edges.features), edges
        )
        norm = self._norm(edges)
        if edges.both_directions:
            norm = norm.repeat(2, 1, 1)
        features = [mix(a) for mix, a in zip(self.mix, sums, strict=True)]
        if self.species_mix is not None:
            features = [mix(a, species) for mix, a in zip(self.species_mix, features, strict=True)]
        return torch.cat(features, dim=2) * norm

    def _norm(self, edges: PaperEdges) -> Float[Tensor, "n_atoms 1 1"]:
        """Factor of each atom's message, which knows the lengths of moments at most."""
        n_radial = edges.radial.shape[1]
        seen = edges.radial if self.density.weights[0].shape[0] == n_radial else edges.features
        density = _summed_density(self.density, seen, edges)
        if self.moment_density is None or self.density_gate is None:
            return 1.0 / (1.0 + density)
        moments = _summed_density(self.moment_density, edges.features[:, n_radial:], edges)
        return torch.sigmoid(self.density_gate(torch.cat([density, moments], dim=1)[:, :, 0]))[:, :, None]


def _summed_density(
    network: Mlp, features: Float[Tensor, "n_edges n_features"], edges: PaperEdges
) -> Float[Tensor, "n_atoms 1 1"]:
    return edges.layout.sum_neighbors(torch.tanh(network(features) ** 2), edges.mask)

"""Sums over neighbours: ordinary (spin-scalar) features and spin vectors, factorised from space."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.nn.angular import clebsch_gordan, split_degrees
from mmace_sim.nn.ops import ChannelLinear, Mlp, Modules, NeighborLayout, PairScatter


@dataclass
class Edges:
    """Geometry of all (padded) neighbour pairs.

    Attributes:
        sender: Atom that each pair brings in.
        radial: Radial basis, zero at the cutoff.
        harmonics: Spherical harmonics of the directions, zero on filling, divided by the square root of the average
            number of neighbours: all sums over neighbours are linear in them.
        layout: How the pairs are grouped by centre.
    """

    sender: Int[Tensor, " n_edges"]
    radial: Float[Tensor, "n_edges n_radial"]
    harmonics: Float[Tensor, "n_edges n_harmonics"]
    layout: NeighborLayout | PairScatter


@dataclass
class Hidden:
    """Node features between layers.

    Attributes:
        scalars: Spin-scalar features of each degree 0 … l, shapes (n_atoms, n_channels, 2l + 1).
        spins: Spin-vector features, scalars in space and odd under time reversal; None before the first layer.
    """

    scalars: list[Float[Tensor, "n_atoms n_channels _n_comp"]]
    spins: Float[Tensor, "n_atoms n_spin_channels 3"] | None


def natural_paths(hidden_ell: int, max_ell: int) -> list[tuple[int, int, int]]:
    """Couplings (l_hidden, l_edge, l_out) that keep the parity (−1)^l and l_out ≤ `max_ell`."""
    return [
        (l1, l2, l3)
        for l1 in range(hidden_ell + 1)
        for l2 in range(max_ell + 1)
        for l3 in range(abs(l1 - l2), min(l1 + l2, max_ell) + 1)
        if (l1 + l2 + l3) % 2 == 0
    ]


class SpaceConvolution(nn.Module):
    """A_i = Σ_j R(r_ij) [Y(r̂_ij) ⊗ h_j]: the convolution of MACE on the spin scalars.

    Args:
        hidden_ell: Highest degree of the incoming features.
        max_ell: Highest degree of the harmonics and of the result.
        n_channels: Number of channels.
    """

    def __init__(self, hidden_ell: int, max_ell: int, n_channels: int) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.max_ell = max_ell
        self.paths = natural_paths(hidden_ell, max_ell)
        self.n_weights = len(self.paths) * n_channels
        self.linears_up = Modules(ChannelLinear(n_channels, n_channels) for _ in range(hidden_ell + 1))
        for k, (l1, l2, l3) in enumerate(self.paths):
            if l1:
                self.register_buffer(f"coupling_{k}", clebsch_gordan(l1, l2, l3), persistent=False)

    def n_paths(self, ell: int) -> int:
        """Number of couplings to one degree."""
        return sum(l3 == ell for _, _, l3 in self.paths)

    def forward(
        self,
        scalars: Sequence[Float[Tensor, "n_atoms n_channels _n_comp"]],
        weights: Float[Tensor, "n_edges n_weights"],
        edges: Edges,
    ) -> list[Tensor]:
        """Features of each degree, all paths one after another on the channel axis."""
        sent = [
            [component.index_select(0, edges.sender) for component in linear(h).unbind(-1)]
            for linear, h in zip(self.linears_up, scalars, strict=True)
        ]
        degrees = split_degrees(edges.harmonics, self.max_ell)
        out: list[list[Tensor]] = [[] for _ in range(self.max_ell + 1)]
        for k, (radial, (l1, l2, l3)) in enumerate(
            zip(weights.split(self.n_channels, dim=1), self.paths, strict=True)
        ):
            harmonics = degrees[l2]
            if l1 == 0:
                out[l3].append(edges.layout.sum_neighbors(radial * sent[0][0], harmonics))
                continue
            coupled = torch.einsum("abc,eb->aec", getattr(self, f"coupling_{k}"), harmonics)
            out[l3].append(
                reduce(
                    torch.add,
                    (edges.layout.sum_neighbors(radial * sent[l1][m], coupled[m]) for m in range(2 * l1 + 1)),
                )
            )
        return [torch.cat(features, dim=1) for features in out]


class SpinConvolution(nn.Module):
    """A_iα = Σ_j R(r_ij) Y(r̂_ij) g_jα with spin vectors g_jα = (W h_j) m_jα + W' v_jα.

    The spin index α never couples to space, so every later spin dot product is exactly invariant under
    rotations and reflections of all moments alone.

    Args:
        max_ell: Highest degree of the harmonics.
        n_channels: Number of scalar channels that come in.
        n_spin_channels: Number of spin channels.
        has_spins: Whether hidden spin vectors v_j come in.
    """

    def __init__(self, max_ell: int, n_channels: int, n_spin_channels: int, *, has_spins: bool) -> None:
        super().__init__()
        self.max_ell = max_ell
        self.n_channels = n_spin_channels
        self.n_weights = (max_ell + 1) * n_spin_channels
        self.linear_moment = ChannelLinear(n_channels, n_spin_channels)
        self.linear_spin = ChannelLinear(n_spin_channels, n_spin_channels) if has_spins else None

    def forward(
        self,
        hidden: Hidden,
        moments: Float[Tensor, "n_atoms 3"],
        weights: Float[Tensor, "n_edges n_weights"],
        edges: Edges,
    ) -> Float[Tensor, "n_centres n_spin_channels n_harmonics 3"]:
        """Spin vectors of each channel and component; the last axis is the spin direction."""
        K = self.n_channels
        sender, layout = edges.sender, edges.layout
        n = layout.n_atoms
        factors = self.linear_moment(hidden.scalars[0])[:, :, 0].index_select(0, sender)
        sent_moments = moments.index_select(0, sender)
        spins = None
        if self.linear_spin is not None and hidden.spins is not None:
            spins = self.linear_spin(hidden.spins).index_select(0, sender)
        out = []
        degrees = split_degrees(edges.harmonics, self.max_ell)
        for ell, (radial, harmonics) in enumerate(zip(weights.split(K, dim=1), degrees, strict=True)):
            basis = (harmonics[:, :, None] * sent_moments[:, None, :]).flatten(1)
            features = layout.sum_neighbors(radial * factors, basis).view(n, K, 2 * ell + 1, 3)
            if spins is not None:
                rows = (radial[:, :, None] * spins).flatten(1)
                hidden_part = layout.sum_neighbors(rows, harmonics).view(n, K, 3, 2 * ell + 1)
                features = features + hidden_part.mT
            out.append(features)
        return torch.cat(out, dim=2)


class SpinSpaceInteraction(nn.Module):
    """One message-passing step: both convolutions, then the spin dot products at each atom.

    S = m_i · A_i couples the centre to its neighbours and D = A_i · A_i neighbours to each other; with the
    spin-scalar A they are mixed to features that are even under time reversal and blind to the spin frame.

    Args:
        hidden_ell: Highest degree of the incoming features.
        max_ell: Highest degree of the result.
        n_channels: Number of channels.
        n_spin_channels: Number of spin channels.
        spin_max_ell: Highest degree of the spin convolution.
        n_radial: Number of radial functions.
        radial_mlp: Widths of the radial network.
        has_spins: Whether hidden spin vectors come in.
    """

    def __init__(
        self,
        *,
        hidden_ell: int,
        max_ell: int,
        n_channels: int,
        n_spin_channels: int,
        spin_max_ell: int,
        n_radial: int,
        radial_mlp: Sequence[int],
        has_spins: bool,
    ) -> None:
        super().__init__()
        self.space = SpaceConvolution(hidden_ell, max_ell, n_channels)
        self.spin = SpinConvolution(spin_max_ell, n_channels, n_spin_channels, has_spins=has_spins)
        # without biases weights vanish where the radial functions do: no jump of energies at the cutoff
        self.radial = Mlp([n_radial, *radial_mlp, self.space.n_weights + self.spin.n_weights])
        self.partner = ChannelLinear(n_spin_channels, n_spin_channels)
        self.mix = Modules(
            ChannelLinear(
                self.space.n_paths(ell) * n_channels + (2 * n_spin_channels if ell <= spin_max_ell else 0),
                n_channels,
            )
            for ell in range(max_ell + 1)
        )

    def forward(
        self, hidden: Hidden, moments: Float[Tensor, "n_atoms 3"], edges: Edges
    ) -> tuple[Float[Tensor, "n_atoms n_channels n_harmonics"], Float[Tensor, "n_atoms n_spin_channels 3"]]:
        """Features of degrees 0 … max_ell, and the spatially scalar spin vectors Σ_j R m_j."""
        for_space, for_spin = self.pair_weights(edges)
        space = self.space(hidden.scalars, for_space, edges)
        spin = self.spin(hidden, moments, for_spin, edges)
        spin_scalar = spin[:, :, 0]
        centre, pairs = spin_products(spin, spin_scalar, moments, self.partner)
        centre_degrees = split_degrees(centre, self.spin.max_ell)
        pair_degrees = split_degrees(pairs, self.spin.max_ell)
        features = []
        for ell, mix in enumerate(self.mix):
            parts = [space[ell]]
            if ell <= self.spin.max_ell:
                parts += [centre_degrees[ell], pair_degrees[ell]]
            features.append(mix(torch.cat(parts, dim=1)))
        return torch.cat(features, dim=2), spin_scalar

    def pair_weights(self, edges: Edges) -> tuple[Float[Tensor, "n_edges _n"], Float[Tensor, "n_edges _m"]]:
        """Weights of the pairs in the space and in the spin convolution: they depend on distances only."""
        for_space, for_spin = self.radial(edges.radial).split(
            [self.space.n_weights, self.spin.n_weights], dim=1
        )
        return for_space, for_spin


def spin_products(
    spin: Float[Tensor, "n_atoms n_spin_channels n_harmonics 3"],
    spin_scalar: Float[Tensor, "n_atoms n_spin_channels 3"],
    moments: Float[Tensor, "n_atoms 3"],
    partner: ChannelLinear,
) -> tuple[
    Float[Tensor, "n_atoms n_spin_channels n_harmonics"], Float[Tensor, "n_atoms n_spin_channels n_harmonics"]
]:
    """Spin dot products m_i · A_i with the centre and A_i · A_i⁰ between neighbours.

    Args:
        spin: Spin vectors A of each channel and component.
        spin_scalar: Their spatially scalar component A⁰.
        moments: Moments of the centres.
        partner: Mixes A⁰ before the second product.
    """
    centre = torch.einsum("nkma,na->nkm", spin, moments)
    pairs = torch.einsum("nkma,nka->nkm", spin, partner(spin_scalar))
    return centre, pairs

"""The spin–orbit term: the only place where moment directions couple to space."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmace_sim.nn.angular import clebsch_gordan, solid_harmonics, split_degrees
from mmace_sim.nn.interaction import Edges
from mmace_sim.nn.ops import ChannelLinear, Mlp

FIELD_MAX_ELL: int = 4
"""Degree of the crystal field; 4 is the first that a cubic site has besides 0."""
SPIN_MAX_ELL: int = 2
SINGLE_ION_DEGREES: tuple[int, ...] = (2, 4)


def two_ion_paths() -> list[tuple[int, int, int]]:
    """Couplings (l, J, L) of m_i, m_j and r̂_ij: (m_i m_j)_J with Y_l to degree L of natural parity.

    J = 0 is the isotropic exchange and belongs to the exchange energy; J = 1 is the Dzyaloshinskii–Moriya
    interaction and J = 2 the symmetric anisotropic exchange (the pseudo-dipolar one for l = 2, L = 0).
    """
    return [
        (ell, J, L)
        for ell in range(SPIN_MAX_ELL + 1)
        for J in (1, 2)
        for L in range(abs(ell - J), min(ell + J, FIELD_MAX_ELL) + 1)
        if (ell + L) % 2 == 0
    ]


class SpinOrbitTerm(nn.Module):
    """E_soc: even in the moments, even under inversion, and zero for an isolated atom.

    With the crystal field G_L = Σ_j R(r_ij) Y_L(r̂_ij) and the spin field V_l = Σ_j R(r_ij) Y_l(r̂_ij) ⊗ m_j, the
    energy of an atom is linear in G_l · S_l(m_i) (single-ion, l = 2 and 4; S the solid harmonics |m|^l Y_l) and in
    G_L · [(m_i V_l)_J]_L (two-ion). Moments are axial vectors, so their products have even parity.

    Args:
        n_node_channels: Scalar channels that come in.
        n_channels: Channels of both fields.
        n_radial: Number of radial functions.
        radial_mlp: Widths of the radial network.
    """

    def __init__(
        self,
        *,
        n_node_channels: int,
        n_channels: int,
        n_radial: int,
        radial_mlp: Sequence[int],
    ) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.paths = two_ion_paths()
        n_degrees = FIELD_MAX_ELL + SPIN_MAX_ELL + 2
        self.radial = Mlp([n_radial, *radial_mlp, n_degrees * n_channels])
        self.linear_up = ChannelLinear(n_node_channels, n_channels)
        n_invariants = (len(SINGLE_ION_DEGREES) + len(self.paths)) * n_channels
        self.readout = nn.Parameter(0.01 * torch.randn(n_invariants) / n_invariants**0.5)
        self.field_degrees: list[list[int]] = []
        for degree in range(SPIN_MAX_ELL + 1):
            couplings = [
                torch.einsum("abj,jmM->mabM", clebsch_gordan(1, 1, J), clebsch_gordan(J, degree, L))
                for ell, J, L in self.paths
                if ell == degree
            ]
            self.field_degrees.append([L for ell, _, L in self.paths if ell == degree])
            coupling = torch.cat(couplings, dim=-1).flatten(0, 1)
            self.register_buffer(f"coupling_{degree}", coupling, persistent=False)

    def forward(
        self,
        scalars: Float[Tensor, "n_atoms n_node_channels"],
        moments: Float[Tensor, "n_atoms 3"],
        edges: Edges,
    ) -> Float[Tensor, " n_atoms"]:
        """Spin–orbit energy of each atom, before the scale.

        Args:
            scalars: Scalar features of the first layer.
            moments: Saturated moments, in units of the largest moment of the data.
            edges: Neighbour pairs with harmonics up to degree 4.
        """
        return self.energies(*self.sums(scalars, moments, edges), moments)

    def sums(
        self,
        scalars: Float[Tensor, "n_senders n_node_channels"],
        moments: Float[Tensor, "n_senders 3"],
        edges: Edges,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Crystal fields G_L and spin fields V_l of each centre, of shapes (n_atoms, n_channels, …)."""
        K = self.n_channels
        radial = self.radial(edges.radial).split(K, dim=1)
        sent = self.linear_up(scalars[..., None])[:, :, 0].index_select(0, edges.sender)
        degrees = split_degrees(edges.harmonics, FIELD_MAX_ELL)
        field = [
            edges.layout.sum_neighbors(weights * sent, harmonics)
            for weights, harmonics in zip(radial, degrees, strict=False)
        ]
        sent_moments = moments.index_select(0, edges.sender)
        spin = []
        for ell, weights in enumerate(radial[FIELD_MAX_ELL + 1 :]):
            basis = (degrees[ell][:, :, None] * sent_moments[:, None, :]).flatten(1)
            spin.append(edges.layout.sum_neighbors(weights * sent, basis))
        return field, spin

    def energies(
        self, field: list[Tensor], spin: list[Tensor], moments: Float[Tensor, "n_atoms 3"]
    ) -> Float[Tensor, " n_atoms"]:
        """Energy of each atom from its fields and its own moment, before the scale."""
        return torch.cat(self._invariants(field, spin, moments), dim=1) @ self.readout

    def _invariants(self, field: list[Tensor], spin: list[Tensor], moments: Tensor) -> list[Tensor]:
        """Single-ion invariants of l = 2 and 4, then those of each path, all of shape (n_atoms, n_channels)."""
        solid = split_degrees(solid_harmonics(moments, FIELD_MAX_ELL), FIELD_MAX_ELL)
        invariants = [torch.bmm(field[ell], solid[ell][:, :, None])[:, :, 0] for ell in SINGLE_ION_DEGREES]
        for ell, degrees in enumerate(self.field_degrees):
            coupled = torch.matmul(moments, getattr(self, f"coupling_{ell}"))  # (m α, n_atoms, all L)
            pair = torch.bmm(spin[ell], coupled.transpose(0, 1))
            for L, part in zip(degrees, pair.split([2 * L + 1 for L in degrees], dim=-1), strict=True):
                invariants.append((part * field[L]).sum(-1) if L else part[..., 0])
        return invariants

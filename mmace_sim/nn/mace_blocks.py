"""Blocks of non-magnetic MACE models, and the magnetic branch that is added to them."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.nn.angular import split_degrees
from mmace_sim.nn.interaction import Edges, Hidden, SpaceConvolution, SpinConvolution, spin_products
from mmace_sim.nn.moments import MomentGate
from mmace_sim.nn.ops import SILU_NORM, ChannelLinear, Mlp, Modules, NeighborLayout, SpeciesLinear
from mmace_sim.nn.radial import bessel_frequencies, polynomial_cutoff
from mmace_sim.nn.repulsion import SCREENING_FACTORS, zbl_energy


class ElementTable(nn.Module):
    """Buffers with one number for each element, and those of a formula.

    Args:
        n_species: Number of elements.
        **constants: Constants of the formula.
    """

    covalent_radii: Tensor

    def __init__(self, n_species: int, **constants: float) -> None:
        super().__init__()
        self.register_buffer("covalent_radii", torch.ones(n_species, dtype=torch.float64))
        for name, value in constants.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))


class AgnesiTransform(ElementTable):
    """x = 1 / [1 + a u^q / (1 + u^(q−p))] of u = 2r/(R_i + R_j), R the covalent radii.

    References:
        Witt et al., J. Chem. Phys. 159, 164101 (2023), doi:10.1063/5.0158783.
    """

    a: Tensor
    q: Tensor
    p: Tensor

    def __init__(self, n_species: int) -> None:
        super().__init__(n_species, a=1.0805, q=0.9183, p=4.5791)

    def forward(
        self, lengths: Float[Tensor, "n_edges 1"], pairs: Int[Tensor, "2 n_edges"]
    ) -> Float[Tensor, "n_edges 1"]:
        """Transformed distances.

        Args:
            lengths: Distances, in Å.
            pairs: Index of both atoms' elements.
        """
        u = 2.0 * lengths / self.covalent_radii[pairs].sum(dim=0)[:, None]
        return 1.0 / (1.0 + self.a * u**self.q / (1.0 + u ** (self.q - self.p)))


class PairRepulsion(ElementTable):
    """Ziegler–Biersack–Littmark repulsion, switched off where covalent spheres no longer touch.

    Args:
        n_species: Number of elements.
        p: Order of the cutoff polynomial.

    References:
        Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Matter (1985); constants as in MACE.
    """

    a_exp: Tensor
    a_prefactor: Tensor
    c: Tensor
    charges: Tensor

    def __init__(self, n_species: int, p: int) -> None:
        super().__init__(n_species, a_exp=0.3, a_prefactor=0.4543)
        self.p = p
        self.register_buffer("c", torch.tensor(SCREENING_FACTORS, dtype=torch.float64))
        self.register_buffer("charges", torch.ones(n_species, dtype=torch.float64))

    def forward(
        self,
        lengths: Float[Tensor, "n_edges 1"],
        pairs: Int[Tensor, "2 n_edges"],
        layout: NeighborLayout,
    ) -> Float[Tensor, " n_atoms"]:
        """Half of the energies of an atom's pairs, in eV.

        Args:
            lengths: Distances, in Å.
            pairs: Index of both atoms' elements.
            layout: How the pairs are grouped by centre.
        """
        charges = self.charges[pairs][:, :, None]
        repulsion = zbl_energy(lengths, charges, self.a_exp, self.a_prefactor, self.c)
        reach = self.covalent_radii[pairs].sum(dim=0)[:, None]
        energies = 0.5 * repulsion * polynomial_cutoff(lengths / reach, 1.0, self.p)
        return layout.sum_neighbors(energies, layout.mask)[:, 0, 0]


class FoundationRadialBasis(nn.Module):
    """Bessel functions of a possibly transformed distance, with the frequencies of the checkpoint.

    Args:
        r_max: Cutoff radius, in Å.
        num_bessel: Number of functions.
        num_polynomial_cutoff: Order of the cutoff.
        transform: Transformation of the distances.
        stored: Whether frequencies and prefactor are kept in the file: in most checkpoints they are rounded to float32,
            in some they were trained.
    """

    frequencies: Tensor
    prefactor: Tensor

    def __init__(
        self,
        r_max: float,
        num_bessel: int,
        num_polynomial_cutoff: int,
        transform: AgnesiTransform | None,
        *,
        stored: bool = True,
    ) -> None:
        super().__init__()
        self.r_max = r_max
        self.p = num_polynomial_cutoff
        prefactor = torch.tensor(math.sqrt(2.0 / r_max), dtype=torch.float64)
        self.register_buffer("frequencies", bessel_frequencies(r_max, num_bessel), persistent=stored)
        self.register_buffer("prefactor", prefactor, persistent=stored)
        self.transform = transform

    def forward(
        self, lengths: Float[Tensor, "n_edges 1"], pairs: Int[Tensor, "2 n_edges"]
    ) -> Float[Tensor, "n_edges n_radial"]:
        """Values of the basis at distances in Å, between atoms of elements `pairs`."""
        x = lengths if self.transform is None else self.transform(lengths, pairs)
        bessel = self.prefactor * torch.sin(x * self.frequencies) / x
        return bessel * polynomial_cutoff(lengths, self.r_max, self.p)


class FoundationInteraction(nn.Module):
    """Message of a MACE layer: convolution, channel mixing, and division by the number of neighbours or a density.

    Args:
        hidden_ell: Highest degree of the incoming features.
        max_ell: Highest degree of the harmonics and of the result.
        n_channels: Number of channels.
        n_radial: Number of radial functions.
        radial_mlp: Widths of the radial network.
        density: Whether to divide by 1 + Σ_j tanh(d(r_ij)²), not by a constant (which is in the weights).
        n_species: Number of elements if the message is mixed by element at the end; otherwise None.

    References:
        Batatia et al., arXiv 2206.07697 and 2401.00096.
    """

    def __init__(
        self,
        *,
        hidden_ell: int,
        max_ell: int,
        n_channels: int,
        n_radial: int,
        radial_mlp: Sequence[int],
        density: bool,
        n_species: int | None,
    ) -> None:
        super().__init__()
        K = n_channels
        self.space = SpaceConvolution(hidden_ell, max_ell, K)
        self.radial = Mlp([n_radial, *radial_mlp])
        self.radial_out = Mlp([radial_mlp[-1], self.space.n_weights])
        self.mix = Modules(ChannelLinear(self.space.n_paths(ell) * K, K) for ell in range(max_ell + 1))
        self.density = Mlp([n_radial, 1]) if density else None
        self.species_mix = (
            None if n_species is None else Modules(SpeciesLinear(n_species, K, K) for _ in range(max_ell + 1))
        )

    def forward(
        self,
        scalars: Sequence[Float[Tensor, "n_atoms n_channels _n_comp"]],
        species: Int[Tensor, " n_atoms"],
        edges: Edges,
    ) -> tuple[Float[Tensor, "n_atoms n_channels n_harmonics"], Float[Tensor, "n_edges n_hidden"]]:
        """Message of degrees 0 … max_ell, and the last hidden features of the radial network.

        Args:
            scalars: Features of each degree that neighbours send.
            species: Index of each atom's element.
            edges: Neighbour pairs.
        """
        hidden = nn.functional.silu(self.radial(edges.radial)) * SILU_NORM
        sums = self.space(scalars, self.radial_out(hidden), edges)
        features = [mix(a) for mix, a in zip(self.mix, sums, strict=True)]
        if self.species_mix is not None:
            features = [mix(a, species) for mix, a in zip(self.species_mix, features, strict=True)]
        message = torch.cat(features, dim=2)
        if self.density is not None:
            density = torch.tanh(self.density(edges.radial) ** 2)
            message = message / (
                1.0 + edges.layout.sum_neighbors(density, torch.ones_like(density) * edges.layout.mask)
            )
        return message, hidden


class MagneticBranch(nn.Module):
    """What moments add to the message of a layer: nothing, until trained.

    Neighbours send spin vectors; at the centre they become spin scalars (see
    :class:`~mmace_sim.nn.interaction.SpinSpaceInteraction`), which a linear map that starts at zero adds to the
    message. Lengths of moments act as channel factors that start at one, on what is sent and on the message.

    Args:
        n_species: Number of elements.
        n_channels: Number of channels of the layer.
        n_spin_channels: Number of spin channels.
        spin_max_ell: Highest degree of the spin convolution.
        n_radial: Number of radial features.
        num_moment_basis: Number of functions of m·m.
        has_spins: Whether hidden spin vectors come in.
    """

    def __init__(
        self,
        *,
        n_species: int,
        n_channels: int,
        n_spin_channels: int,
        spin_max_ell: int,
        n_radial: int,
        num_moment_basis: int,
        has_spins: bool,
    ) -> None:
        super().__init__()
        K, Q = n_channels, n_spin_channels
        self.spin = SpinConvolution(spin_max_ell, K, Q, has_spins=has_spins)
        self.radial = Mlp([n_radial, self.spin.n_weights])
        self.partner = ChannelLinear(Q, Q)
        self.mix = Modules(ChannelLinear(2 * Q, K) for _ in range(spin_max_ell + 1))
        self.sender_gate = MomentGate(n_species, num_moment_basis, K)
        self.gate = MomentGate(n_species, num_moment_basis, K)
        self.spin_neighbors = ChannelLinear(Q, Q)
        self.spin_centre = ChannelLinear(K, Q)
        for start in (*self.mix, self.sender_gate, self.gate):
            nn.init.zeros_(start.weight)

    def sent(
        self,
        scalars: Sequence[Float[Tensor, "n_atoms n_channels _n_comp"]],
        basis: Float[Tensor, "n_atoms n_basis"],
        species: Int[Tensor, " n_atoms"],
    ) -> list[Tensor]:
        """Features that atoms send, which depend on the lengths of their moments."""
        factors = self.sender_gate(basis, species)[:, :, None]
        return [features * factors for features in scalars]

    def forward(
        self,
        message: Float[Tensor, "n_atoms n_channels n_harmonics"],
        hidden: Hidden,
        moments: Float[Tensor, "n_atoms 3"],
        basis: Float[Tensor, "n_atoms n_basis"],
        species: Int[Tensor, " n_atoms"],
        radial: Float[Tensor, "n_edges n_hidden"],
        edges: Edges,
    ) -> tuple[Float[Tensor, "n_atoms n_channels n_harmonics"], Float[Tensor, "n_atoms n_spin_channels 3"]]:
        """The message with the magnetic part, and the spatially scalar spin vectors Σ_j R m_j.

        Args:
            message: Message of the non-magnetic layer.
            hidden: Features that come in.
            moments: Saturated moments, in units of the largest of the data.
            basis: Functions of m·m.
            species: Index of each atom's element.
            radial: Hidden features of the layer's radial network.
            edges: Neighbour pairs.
        """
        spin = self.spin(hidden, moments, self.radial(radial), edges)
        spin_scalar = spin[:, :, 0]
        centre, pairs = spin_products(spin, spin_scalar, moments, self.partner)
        max_ell = self.spin.max_ell
        degrees = zip(self.mix, split_degrees(centre, max_ell), split_degrees(pairs, max_ell), strict=True)
        added = torch.cat([mix(torch.cat([c, d], dim=1)) for mix, c, d in degrees], dim=2)
        message = message * self.gate(basis, species)[:, :, None]
        missing = message.shape[2] - added.shape[2]
        return message + nn.functional.pad(added, (0, missing)), spin_scalar

    def hidden_spins(
        self,
        spins: Float[Tensor, "n_atoms n_spin_channels 3"],
        scalars: Float[Tensor, "n_atoms n_channels 1"],
        moments: Float[Tensor, "n_atoms 3"],
    ) -> Float[Tensor, "n_atoms n_spin_channels 3"]:
        """Spin vectors of the next layer."""
        return self.spin_neighbors(spins) + self.spin_centre(scalars) * moments[:, None, :]

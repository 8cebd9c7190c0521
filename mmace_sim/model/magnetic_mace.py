"""The energy model."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.architectures import Architecture
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.reference import ReferenceEnergy
from mmace_sim.model.spin_space import SpinSpaceModel, make_spin_orbit_term
from mmace_sim.nn.angular import spherical_harmonics
from mmace_sim.nn.interaction import Edges, Hidden, SpinSpaceInteraction
from mmace_sim.nn.moments import MomentGate
from mmace_sim.nn.ops import ChannelLinear, Modules, NeighborLayout, PairScatter, SpeciesLinear
from mmace_sim.nn.product import ProductBasis
from mmace_sim.nn.radial import RadialBasis
from mmace_sim.nn.readout import LinearReadout, NonLinearReadout, Readout
from mmace_sim.nn.spin_orbit import FIELD_MAX_ELL


class MagneticLayer(nn.Module):
    """Interaction, symmetric product, residual connection and the update of the hidden spin vectors.

    Args:
        config: Hyper-parameters of the model.
        first: Whether this is the first layer, which takes scalars only and has no residual connection
            (so that an isolated atom has no energy but its reference energy).
    """

    def __init__(self, config: ModelConfig, *, first: bool) -> None:
        super().__init__()
        n_species, K = len(config.atomic_numbers), config.num_channels
        self.interaction = SpinSpaceInteraction(
            hidden_ell=0 if first else config.hidden_ell,
            max_ell=config.max_ell,
            n_channels=K,
            n_spin_channels=config.spin_channels,
            spin_max_ell=config.spin_max_ell,
            n_radial=config.num_bessel,
            radial_mlp=config.radial_mlp,
            has_spins=not first,
        )
        self.gate = MomentGate(n_species, config.num_moment_basis, K)
        self.product = ProductBasis(config.max_ell, config.hidden_ell, config.correlation, n_species, K)
        self.skip = (
            None if first else Modules(SpeciesLinear(n_species, K, K) for _ in range(config.hidden_ell + 1))
        )
        self.spin_neighbors = ChannelLinear(config.spin_channels, config.spin_channels)
        self.spin_centre = ChannelLinear(K, config.spin_channels)

    def forward(
        self,
        hidden: Hidden,
        moments: Float[Tensor, "n_atoms 3"],
        basis: Float[Tensor, "n_atoms n_basis"],
        species: Int[Tensor, " n_atoms"],
        edges: Edges,
    ) -> Hidden:
        """Features of the next layer."""
        features, spins = self.interaction(hidden, moments, edges)
        features = features * self.gate(basis, species)[:, :, None]
        scalars = self.product(features, species)
        if self.skip is not None:
            scalars = [
                new + skip(old, species)
                for new, skip, old in zip(scalars, self.skip, hidden.scalars, strict=True)
            ]
        factors = self.spin_centre(scalars[0])
        spins = self.spin_neighbors(spins) + factors * moments[:, None, :]
        return Hidden(scalars=scalars, spins=spins)


class MagneticMACE(SpinSpaceModel):
    """Magnetic MACE with spin and space factorised, and an optional spin–orbit term.

    E = Σ_i [E0_z + E1_z(m_i·m_i) + s · (E_exchange,i + E_soc,i)]. E_exchange depends on moments through spin dot
    products only: it is invariant under every rotation or reflection of all moments alone, under time reversal,
    and under inversion.
    E_soc (present with ``spin_orbit=True``) couples them to space, is even in the moments and conserves parity.

    Made in float64; cast it with ``.to(torch.float32)`` where speed counts more.

    Args:
        config: Hyper-parameters.

    References:
        arXiv 2604.08143 (magnetic MACE); Batatia et al., arXiv 2206.07697 (MACE).
    """

    layers: Modules[MagneticLayer]
    readouts: Modules[Readout]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        n_species, K = len(config.atomic_numbers), config.num_channels
        self.reference = ReferenceEnergy(
            config.reference_moments(), config.num_one_body, config.wall_moments()
        )
        self.embedding = nn.Parameter(torch.randn(n_species, K))
        self.embedding_gate = MomentGate(n_species, config.num_moment_basis, K)
        self.radial_basis = RadialBasis(config.r_max, config.num_bessel, config.num_polynomial_cutoff)
        n_layers = config.num_interactions
        self.layers = Modules(MagneticLayer(config, first=k == 0) for k in range(n_layers))
        self.readouts = Modules(
            LinearReadout(K) if k < n_layers - 1 else NonLinearReadout(K, config.readout_channels)
            for k in range(n_layers)
        )
        self.spin_orbit_term = make_spin_orbit_term(config)
        self.double()

    def embed(
        self, basis: Float[Tensor, "n_atoms n_basis"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_channels"]:
        """Features of the elements, which depend on the lengths of moments."""
        return self.embedding[species] * self.embedding_gate(basis, species)

    def start(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"], species: Int[Tensor, " n_atoms"]
    ) -> tuple[Edges, Float[Tensor, " n_atoms"]]:
        """Radial and angular basis of the pairs, regrouped by centre; no energies."""
        layout = self.layout(graph, vectors.dtype)
        vectors, sender = layout.arrange(vectors, graph.edge_index[0])
        return self.edges(vectors, sender, layout), self.embedding.new_zeros(len(species))

    def edges(
        self,
        vectors: Float[Tensor, "n_pairs 3"],
        sender: Int[Tensor, " n_pairs"],
        layout: NeighborLayout | PairScatter,
    ) -> Edges:
        """Radial and angular basis of pairs.

        Args:
            vectors: From the centre to the neighbour, in Å, in the order of the layout.
            sender: Atom that each pair brings in.
            layout: How they are grouped by centre.
        """
        lengths = torch.linalg.norm(vectors, dim=1, keepdim=True)
        max_ell = self.config.max_ell if self.spin_orbit_term is None else FIELD_MAX_ELL
        norm = self.config.avg_num_neighbors**-0.5
        harmonics = spherical_harmonics(vectors, lengths, max_ell) * (norm * layout.mask)
        return Edges(sender=sender, radial=self.radial_basis(lengths), harmonics=harmonics, layout=layout)


ARCHITECTURE = Architecture(ModelConfig, MagneticMACE)

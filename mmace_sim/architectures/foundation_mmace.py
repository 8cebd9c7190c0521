"""A magnetic model around a non-magnetic MACE: exactly that model until its magnetic part is trained."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import model_validator
from torch import Tensor, nn

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.architectures import Architecture
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.reference import ReferenceEnergy
from mmace_sim.model.spin_space import SpinSpaceModel, make_spin_orbit_term
from mmace_sim.nn.angular import spherical_harmonics
from mmace_sim.nn.interaction import Edges, Hidden, natural_paths
from mmace_sim.nn.mace_blocks import (
    AgnesiTransform,
    FoundationInteraction,
    FoundationRadialBasis,
    MagneticBranch,
    PairRepulsion,
)
from mmace_sim.nn.ops import Modules, SpeciesLinear
from mmace_sim.nn.product import ProductBasis
from mmace_sim.nn.readout import Readout, mace_readouts
from mmace_sim.nn.spin_orbit import FIELD_MAX_ELL

MAGNETIC_FIELDS: tuple[str, ...] = (
    "atomic_numbers",
    "max_moment",
    "nonmagnetic",
    "num_moment_basis",
    "num_one_body",
    "spin_channels",
    "spin_max_ell",
    "spin_orbit",
    "spin_orbit_channels",
    "repulsion",
)
"""Hyper-parameters that are free; the foundation fixes the others."""


class FoundationConfig(ModelConfig):
    """Everything that defines a :class:`FoundationMMACE` apart from its weights."""

    density_normalization: bool = False
    """Whether sums over neighbours are divided by a learned density, not by their average number."""
    residual_first: bool = False
    """Whether the first layer has a residual connection."""
    distance_transform: Literal["none", "agnesi"] = "none"
    """What the radial basis is a function of."""
    pair_repulsion: bool = False
    """Whether there is a Ziegler–Biersack–Littmark repulsion."""

    @model_validator(mode="after")
    def _consistent(self) -> "FoundationConfig":
        if self.spin_max_ell > self.max_ell:
            raise ValueError(f"spin_max_ell = {self.spin_max_ell} is above max_ell = {self.max_ell}")
        return self

    @property
    def convolution_floats(self) -> int:
        """Numbers per neighbour pair that a layer's convolutions keep for their gradients."""
        spin = (self.spin_max_ell + 1) * self.spin_channels * 4
        return 4 * (len(natural_paths(self.hidden_ell, self.max_ell)) * self.num_channels + spin)


class FoundationReference(ReferenceEnergy):
    """E0_z + E1_z(m·m), whose wall above the largest moment stands only where it was switched on.

    Without it, and with E1 = 0, the energy is that of the foundation for every moment.

    Args:
        max_moment: Moment scale of each element (of each head), in μB.
        num_basis: Number of Chebyshev functions of m·m.
    """

    wall_on: Tensor

    def __init__(self, max_moment: list[float], num_basis: int) -> None:
        super().__init__(max_moment, num_basis)
        self.register_buffer("wall_on", torch.zeros((), dtype=torch.float64))

    def wall(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """The wall, in eV, if it is on."""
        return self.wall_on * super().wall(magmoms, species)


class FoundationLayer(nn.Module):
    """A layer of a non-magnetic MACE and the magnetic branch that is added to its message.

    Args:
        config: Hyper-parameters of the model.
        index: Number of the layer, from zero.
    """

    def __init__(self, config: FoundationConfig, index: int) -> None:
        super().__init__()
        n_species, K = len(config.atomic_numbers), config.num_channels
        first, last = index == 0, index == config.num_interactions - 1
        self.out_ell = 0 if last else config.hidden_ell
        self.interaction = FoundationInteraction(
            hidden_ell=0 if first else config.hidden_ell,
            max_ell=config.max_ell,
            n_channels=K,
            n_radial=config.num_bessel,
            radial_mlp=config.radial_mlp,
            density=config.density_normalization,
            n_species=n_species if first and not config.residual_first else None,
        )
        self.product = ProductBasis(config.max_ell, self.out_ell, config.correlation, n_species, K)
        n_skips = (1 if config.residual_first else 0) if first else self.out_ell + 1
        self.skip = Modules(SpeciesLinear(n_species, K, K) for _ in range(n_skips))
        self.magnetic = MagneticBranch(
            n_species=n_species,
            n_channels=K,
            n_spin_channels=config.spin_channels,
            spin_max_ell=config.spin_max_ell,
            n_radial=config.radial_mlp[-1],
            num_moment_basis=config.num_moment_basis,
            has_spins=not first,
        )

    def forward(
        self,
        hidden: Hidden,
        moments: Float[Tensor, "n_atoms 3"],
        basis: Float[Tensor, "n_atoms n_basis"],
        species: Int[Tensor, " n_atoms"],
        edges: Edges,
    ) -> Hidden:
        """Features of the next layer."""
        branch = self.magnetic
        message, radial = self.interaction(branch.sent(hidden.scalars, basis, species), species, edges)
        message, spins = branch(message, hidden, moments, basis, species, radial, edges)
        scalars = self.product(message, species)
        for ell, skip in enumerate(self.skip):
            scalars[ell] = scalars[ell] + skip(hidden.scalars[ell], species)
        return Hidden(scalars=scalars, spins=branch.hidden_spins(spins, scalars[0], moments))

    def isolated(
        self, scalars: Float[Tensor, "n_species n_channels 1"], species: Int[Tensor, " n_species"]
    ) -> Float[Tensor, "n_species n_channels 1"]:
        """Scalar features of atoms without neighbours."""
        return self.skip[0](scalars, species) if len(self.skip) else torch.zeros_like(scalars)


class FoundationMMACE(SpinSpaceModel):
    """A non-magnetic MACE with a magnetic branch in every layer.

    E = Σ_i [E0_z + E1_z(m_i·m_i) + s · (ε_i − ε_z + E_soc,i)], where ε is the output of the network and ε_z that of an
    isolated atom, so that E0 is the energy of one. All that moments do is multiplied by weights that start at
    zero: a new model is the foundation, for every moment. Spin and space are factorised as in
    :class:`~mmace_sim.model.magnetic_mace.MagneticMACE`, with the same exact invariances.

    :func:`mmace_sim.interop.foundation.from_foundation` makes one from a checkpoint.

    Args:
        config: Hyper-parameters.

    References:
        Batatia et al., arXiv 2206.07697 (MACE) and 2401.00096 (MACE-MP-0).
    """

    config: FoundationConfig
    reference: FoundationReference
    layers: Modules[FoundationLayer]
    readouts: Modules[Readout]

    def __init__(self, config: FoundationConfig) -> None:
        super().__init__(config)
        n_species, K, n_layers = len(config.atomic_numbers), config.num_channels, config.num_interactions
        self.reference = FoundationReference(config.reference_moments(), config.num_one_body)
        self.embedding = nn.Parameter(torch.randn(n_species, K))
        self.radial_basis = FoundationRadialBasis(
            config.r_max,
            config.num_bessel,
            config.num_polynomial_cutoff,
            AgnesiTransform(n_species) if config.distance_transform == "agnesi" else None,
        )
        self.repulsion = (
            PairRepulsion(n_species, config.num_polynomial_cutoff) if config.pair_repulsion else None
        )
        self.layers = Modules(FoundationLayer(config, k) for k in range(n_layers))
        self.readouts = mace_readouts(K, config.readout_channels, n_layers)
        self.spin_orbit_term = make_spin_orbit_term(config)
        if self.spin_orbit_term is not None:
            nn.init.zeros_(self.spin_orbit_term.readout)
        self.double()

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Weights that come from the foundation."""
        magnetic = {id(p) for p in self.magnetic_parameters()}
        return [p for p in self.parameters() if id(p) not in magnetic]

    def magnetic_parameters(self) -> list[nn.Parameter]:
        """Weights of the magnetic part."""
        parts = [*(layer.magnetic for layer in self.layers), self.spin_orbit_term]
        return [p for part in parts if part is not None for p in part.parameters()]

    def embed(
        self,
        basis: Float[Tensor, "n_atoms n_basis"],  # noqa: ARG002 lengths of moments act within the layers
        species: Int[Tensor, " n_atoms"],
    ) -> Float[Tensor, "n_atoms n_channels"]:
        """Features of the elements."""
        return self.embedding[species]

    def _isolated(self) -> Float[Tensor, " n_species"]:
        """Output of the network for an isolated atom of each element, before the scale."""
        species = torch.arange(len(self.embedding), device=self.embedding.device)
        scalars, energies = self.embedding[:, :, None], torch.zeros_like(self.embedding[:, 0])
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            scalars = layer.isolated(scalars, species)
            energies = energies + readout(scalars[:, :, 0])
        return energies

    def start(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"], species: Int[Tensor, " n_atoms"]
    ) -> tuple[Edges, Float[Tensor, " n_atoms"]]:
        """Radial and angular basis of the pairs, regrouped by centre, and the repulsion above isolated atoms."""
        sender, receiver = graph.edge_index
        layout = self.layout(graph, vectors.dtype)
        vectors, sender, receiver = layout.arrange(vectors, sender, receiver)
        lengths = torch.linalg.norm(vectors, dim=1, keepdim=True)
        pairs = species[torch.stack([sender, receiver])]
        max_ell = self.config.max_ell if self.spin_orbit_term is None else FIELD_MAX_ELL
        norm = self.config.avg_num_neighbors**-0.5
        edges = Edges(
            sender=sender,
            radial=self.radial_basis(lengths, pairs),
            harmonics=spherical_harmonics(vectors, lengths, max_ell) * (norm * layout.mask),
            layout=layout,
        )
        energies = -self._isolated()[species]
        return edges, energies if self.repulsion is None else energies + self.repulsion(
            lengths, pairs, layout
        )


ARCHITECTURE = Architecture(FoundationConfig, FoundationMMACE)

"""The published magnetic MACE architecture, with its defects and the options that repair them."""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mmace_sim.architectures.paper_interaction import (
    DensityKind,
    PaperEdges,
    PaperInteraction,
    coupling_paths,
)
from mmace_sim.architectures.paper_moments import moment_functions, moment_harmonics, saturate_outside
from mmace_sim.architectures.paper_product import PaperProduct
from mmace_sim.architectures.paper_reference import PaperReference, SplineReference
from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.architectures import Architecture
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.config import ArchitectureConfig, Basis, Width
from mmace_sim.nn.angular import spherical_harmonics, split_degrees
from mmace_sim.nn.mace_blocks import AgnesiTransform, FoundationRadialBasis, PairRepulsion
from mmace_sim.nn.ops import Modules, SpeciesLinear
from mmace_sim.nn.radial import polynomial_cutoff
from mmace_sim.nn.readout import mace_readouts

FADING_WIDTH: float = 0.5
"""Width of the shell in which a smooth cutoff acts, in Å."""
FADING_ORDER: int = 5


class PaperConfig(ArchitectureConfig):
    """Everything that defines a :class:`PaperMMACE` apart from its weights."""

    radial_mlp: list[Width] = Field(default=[64, 64, 64], min_length=1, max_length=16)
    """Widths of the network that weighs the products with Y(r̂)."""
    max_m_ell: int = Field(default=1, ge=0, le=3)
    """Highest degree of the solid harmonics of the moments."""
    num_moment_basis: Basis = 8
    """Number of Chebyshev functions of a moment's length in the network."""
    num_one_body: Basis = 9
    """Number of Chebyshev functions of the one-body energy, not counting the constant, or of knots of its spline."""
    one_body: Literal["chebyshev", "spline"] = "chebyshev"
    """The one-body energy: Chebyshev functions of 1 − 2 m²/m_max², or a natural cubic spline in m²."""
    distance_transform: Literal["none", "agnesi"] = "none"
    """What the radial basis is a function of."""
    pair_repulsion: bool = False
    """Whether there is a Ziegler–Biersack–Littmark repulsion, before the scale."""
    stored_bessel: bool = False
    """Whether frequencies and prefactor of the radial functions are weights, not n π / r_max and √(2 / r_max)."""
    first_density: DensityKind = "distance"
    """What the message of the first layer is divided by."""
    later_density: DensityKind = "distance"
    """What the messages of the other layers are divided by."""
    time_reversal: bool = False
    """Repair: evaluate ½[E(m) + E(−m)]. The published function is neither even in m nor under inversion."""
    saturate: bool = False
    """Repair: moments saturate at the largest moment of their element (they are unchanged up to 95 % of it), and a
    one-body wall rises above it."""
    smooth_cutoff: bool = False
    """Repair: pairs fade out over the last 0.5 Å before the cutoff, where the published energy jumps."""
    clamp: bool = False
    """Whether Chebyshev functions keep their value above the largest moment, as in later upstream versions."""

    @model_validator(mode="after")
    def _enough_knots(self) -> "PaperConfig":
        if self.one_body == "spline" and self.num_one_body < 3:
            raise ValueError(f"num_one_body = {self.num_one_body}, but a spline has at least 3 knots")
        return self

    def moment_scale(self, atomic_number: int) -> float:
        """Largest moment of an element, in μB, exactly as given; 1 where it is not known or zero."""
        return self.max_moment.get(atomic_number) or 1.0

    @property
    def convolution_floats(self) -> int:
        """Numbers per neighbour pair that a layer's convolution keeps for its gradients."""
        first = coupling_paths(range(self.hidden_ell + 1), self.max_ell, self.max_ell)
        second = coupling_paths([path.out for path in first], self.max_m_ell, self.max_ell)
        n_components = sum(2 * first[path.source].source + 1 for path in second)
        return (2 if self.time_reversal else 1) * 3 * n_components * self.num_channels


class PaperLayer(nn.Module):
    """Interaction, product with the atom's own moment and, in all layers but the first, a skip connection.

    Args:
        config: Hyper-parameters of the model.
        index: Number of the layer, from zero.
    """

    def __init__(self, config: PaperConfig, index: int) -> None:
        super().__init__()
        n_species, K = len(config.atomic_numbers), config.num_channels
        out_ell = 0 if 0 < index == config.num_interactions - 1 else config.hidden_ell
        self.interaction = PaperInteraction(config, first=index == 0)
        self.product = PaperProduct(
            max_ell=config.max_ell,
            out_ell=out_ell,
            max_m_ell=config.max_m_ell,
            correlation=config.correlation,
            n_species=n_species,
            n_channels=K,
            num_moment_basis=config.num_moment_basis,
        )
        self.skip = Modules(SpeciesLinear(n_species, K, K) for _ in range(out_ell + 1)) if index else None

    def forward(
        self,
        hidden: list[Tensor],
        moment_basis: Float[Tensor, "n_atoms n_basis"],
        harmonics: Float[Tensor, "n_atoms n_harmonics"],
        species: Int[Tensor, " n_atoms"],
        edges: PaperEdges,
    ) -> list[Tensor]:
        """Features of the next layer."""
        features = self.interaction(hidden, species, edges)
        new = self.product(features, moment_basis, harmonics, species)
        if self.skip is None:
            return new
        return [a + skip(h, species) for a, skip, h in zip(new, self.skip, hidden, strict=False)]


class PaperMMACE(MagneticModel):
    """The magnetic MACE of the paper: one equivariant network of positions and moments together.

    It treats moments as polar vectors: it is invariant under joint rotations, and under inversion only if moments are
    reversed too. E(−m) = E(m) holds with ``time_reversal=True`` alone, and then E(−r, m) = E(r, m) does as well. Its
    energy jumps where a neighbour crosses the cutoff (unless ``smooth_cutoff``), and grows without bounds above the
    largest moments (unless ``saturate``). ``mmace-sim convert`` converts upstream weights.

    Args:
        config: Hyper-parameters.

    References:
        arXiv 2604.08143; weights and conventions of github.com/CheukHinHoJerry/mace, commit 2fc7d9b.
    """

    config: PaperConfig
    reference: PaperReference

    def __init__(self, config: PaperConfig) -> None:
        super().__init__(config)
        n_species, K, n_layers = len(config.atomic_numbers), config.num_channels, config.num_interactions
        reference = SplineReference if config.one_body == "spline" else PaperReference
        self.reference = reference(
            config.reference_moments(), config.num_one_body, saturated=config.saturate, clamped=config.clamp
        )
        self.embedding = nn.Parameter(torch.randn(n_species, K))
        agnesi = config.distance_transform == "agnesi"
        self.radial_basis = FoundationRadialBasis(
            config.r_max,
            config.num_bessel,
            config.num_polynomial_cutoff,
            AgnesiTransform(n_species) if agnesi else None,
            stored=config.stored_bessel,
        )
        self.repulsion = (
            PairRepulsion(n_species, config.num_polynomial_cutoff) if config.pair_repulsion else None
        )
        self.layers = Modules(PaperLayer(config, k) for k in range(n_layers))
        self.readouts = mace_readouts(K, config.readout_channels, n_layers)
        self.double()

    @property
    def spin_orbit(self) -> bool:
        """Directions of moments always couple to space."""
        return True

    @property
    def moment_limits(self) -> dict[int, float]:
        """The largest moments, unless they saturate: beyond, Chebyshev functions grow without bounds."""
        return {} if self.config.saturate else dict(self.config.max_moment)

    def network(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """Interaction energy of each atom, before the scale.

        With time reversal, the atoms with their moments reversed follow the others from the first sum over
        neighbours on; all that does not depend on the sign of a moment is computed once.
        """
        max_moment, config = self.max_moment[species], self.config
        moments = saturate_outside(graph.magmoms, max_moment) if config.saturate else graph.magmoms
        basis = moment_functions(moments, max_moment, config.num_moment_basis, clamped=config.clamp)
        harmonics = moment_harmonics(moments, config.max_m_ell)
        edges, repulsion = self._edges(graph, vectors, species, basis, harmonics)
        hidden = [self.embedding[species][:, :, None]]
        if config.time_reversal:
            species, basis = species.repeat(2), basis.repeat(2, 1)
            harmonics = torch.cat([harmonics, moment_harmonics(-moments, config.max_m_ell)])
        energies = self.embedding.new_zeros(len(species))
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            hidden = layer(hidden, basis, harmonics, species, edges)
            energies = energies + readout(hidden[0][:, :, 0])
        return repulsion + (energies.view(2, -1).mean(dim=0) if config.time_reversal else energies)

    def _edges(
        self,
        graph: MagneticGraph,
        vectors: Float[Tensor, "n_edges 3"],
        species: Int[Tensor, " n_atoms"],
        moment_basis: Float[Tensor, "n_atoms n_basis"],
        harmonics: Float[Tensor, "n_atoms n_harmonics"],
    ) -> tuple[PaperEdges, Float[Tensor, " n_atoms"] | float]:
        """Pairs as the layers take them, and the repulsion of each atom, before the scale."""
        sender, receiver = graph.edge_index
        layout = self.layout(graph, vectors.dtype)
        vectors, sender, receiver = layout.arrange(vectors, sender, receiver)
        lengths = torch.linalg.norm(vectors, dim=1, keepdim=True)
        mask = layout.mask * (lengths < self.config.r_max)
        # upstream's vectors point from the neighbour to the centre; with moments as polar vectors that matters
        angular = spherical_harmonics(-vectors, lengths, self.config.max_ell) * mask
        if self.config.smooth_cutoff:
            inside = self.config.r_max - FADING_WIDTH
            angular = angular * polynomial_cutoff(
                (lengths - inside).clamp(min=0.0), FADING_WIDTH, FADING_ORDER
            )
        degrees = split_degrees(angular, self.config.max_ell)
        pairs = species[torch.stack([sender, receiver])]
        radial = self.radial_basis(lengths, pairs)
        repulsion = (
            0.0 if self.repulsion is None else self.repulsion(lengths, pairs, replace(layout, mask=mask))
        )
        sent = harmonics.index_select(0, sender)[:, None]
        edges = PaperEdges(
            sender=sender,
            radial=radial,
            features=torch.cat([radial, moment_basis.index_select(0, sender)], dim=1),
            couplings=[(degree[:, :, None] * sent).flatten(1) for degree in degrees],
            mask=mask,
            layout=layout,
            both_directions=self.config.time_reversal,
        )
        return edges, repulsion


ARCHITECTURE = Architecture(PaperConfig, PaperMMACE)

"""What models with spin and space factorised share: the way through the layers, and the spin–orbit term."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.config import ModelConfig
from mmace_sim.nn.interaction import Edges, Hidden
from mmace_sim.nn.moments import moment_basis, saturate
from mmace_sim.nn.spin_orbit import SpinOrbitTerm

UNSEEN: float = 1e15
"""Unit of the moments that the network does not see, in μB."""


class SpinSpaceModel(MagneticModel):
    """Layers of scalars and spin vectors, a readout behind each, and a spin–orbit term if there is one.

    Args:
        config: Hyper-parameters.

    Attributes:
        layers: Map `Hidden` features to those of the next layer.
        readouts: Energies of the scalar features behind each layer.
        spin_orbit_term: The spin–orbit term, or None.
    """

    moment_unit: Tensor

    config: ModelConfig
    layers: nn.ModuleList
    readouts: nn.ModuleList
    spin_orbit_term: SpinOrbitTerm | None

    @property
    def spin_orbit(self) -> bool:
        """Whether directions of moments couple to space."""
        return self.config.spin_orbit

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        unit = [UNSEEN if z in config.nonmagnetic else config.moment_scale(z) for z in config.atomic_numbers]
        self.register_buffer("moment_unit", torch.tensor(unit, dtype=torch.float64), persistent=False)

    def seen_moments(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms 3"]:
        """Moments as the network sees them: in units of the largest of the data, saturated above.

        Args:
            magmoms: Moments, in μB.
            species: Index of each atom's element.
        """
        return saturate(magmoms, self.moment_unit[species])

    def network(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """Interaction energy of each atom, before the scale."""
        moments = self.seen_moments(graph.magmoms, species)
        basis = moment_basis(moments, self.config.num_moment_basis)
        edges, energies = self.start(graph, vectors, species)
        scalars = self.embed(basis, species)
        hidden = Hidden(scalars=[scalars[:, :, None]], spins=None)
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            hidden = layer(hidden, moments, basis, species, edges)
            energies = energies + readout(hidden.scalars[0][:, :, 0])
        if self.spin_orbit_term is not None:
            energies = energies + self.spin_orbit_term(scalars, moments, edges)
        return energies

    def start(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"], species: Int[Tensor, " n_atoms"]
    ) -> tuple[Edges, Float[Tensor, " n_atoms"]]:
        """Radial and angular basis of the pairs, regrouped by centre, and energies that no layer gives."""
        raise NotImplementedError

    def embed(
        self, basis: Float[Tensor, "n_atoms n_basis"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_channels"]:
        """Scalar features that the first layer takes."""
        raise NotImplementedError


def make_spin_orbit_term(config: ModelConfig) -> SpinOrbitTerm | None:
    """The spin–orbit term that a configuration asks for.

    Args:
        config: Hyper-parameters.
    """
    if not config.spin_orbit:
        return None
    return SpinOrbitTerm(
        n_node_channels=config.num_channels,
        n_channels=config.spin_orbit_channels,
        n_radial=config.num_bessel,
        radial_mlp=config.radial_mlp,
    )

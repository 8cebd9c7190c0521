"""A model with one layer in two parts: sums over neighbours, and energies of atoms from their sums.

A moment that changes enters the sums of its neighbours by its own pairs alone. Whoever keeps the sums can update them
and evaluate the second part for the atoms that they belong to: that is what single moves of Monte Carlo cost.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.nn.interaction import Edges, Hidden
from mmace_sim.nn.moments import moment_basis
from mmace_sim.nn.ops import PairScatter
from mmace_sim.nn.polynomial import ChannelPolynomial
from mmace_sim.nn.spin_orbit import FIELD_MAX_ELL

_CHUNK = 192
"""Atoms evaluated at once: what is computed of them stays in the cache of the processor."""


@dataclass
class PairTable:
    """Pairs at fixed distances.

    Attributes:
        edges: Their geometry.
        weights: Their weights in the space and in the spin convolution.
        repulsion: Repulsion of each centre, in eV and float64.
    """

    edges: Edges
    weights: tuple[Float[Tensor, "n_pairs _n"], Float[Tensor, "n_pairs _m"]]
    repulsion: Float[Tensor, " n_centres"]


class PairSums:
    """Sums over neighbours of a one-layer `MagneticMACE`, and energies of atoms from them.

    They can be differentiated by the moments, once.

    The sums of an atom are linear in what its neighbours send. They are a list of arrays (n_atoms, …): first those that
    depend on the lengths of moments only, then those that depend on their directions too.

    Args:
        model: The model; its weights of now are taken.
    """

    def __init__(self, model: MagneticMACE) -> None:
        self.model, self.layer = model, model.layers[0]
        interaction = self.layer.interaction
        self.polynomial = ChannelPolynomial(self.layer.product.contractions[0])
        self._from_space, self._from_centre, self._from_pairs = [], [], []
        K = interaction.spin.n_channels
        for ell, mix in enumerate(interaction.mix):
            matrix = (mix.weight * mix.norm).detach()
            n = interaction.space.n_paths(ell) * interaction.space.n_channels
            self._from_space.append(matrix[:, :n])
            if matrix.shape[1] > n:
                self._from_centre.append(matrix[:, n : n + K])
                self._from_pairs.append(matrix[:, n + K :])

    @staticmethod
    def offered_by(model: nn.Module) -> bool:
        """Whether a model can be split like this."""
        return isinstance(model, MagneticMACE) and len(model.layers) == 1

    @torch.no_grad()
    def table(self, graph: MagneticGraph) -> PairTable:
        """All pairs of a graph."""
        species = self.model.species_table[graph.atomic_numbers]
        vectors = graph.edge_vectors()
        edges, energies = self.model.start(graph, self.model.seen_vectors(graph, vectors), species)
        repulsion = torch.zeros_like(energies, dtype=torch.float64) + self.model.close_pairs(graph, vectors)
        return PairTable(edges, self.layer.interaction.pair_weights(edges), repulsion)

    @torch.no_grad()
    def some_pairs(
        self,
        vectors: Float[Tensor, "n_pairs 3"],
        sender: Int[Tensor, " n_pairs"],
        receiver: Int[Tensor, " n_pairs"],
        n_atoms: int,
    ) -> PairTable:
        """Pairs of which each centre has few, without the repulsion, which no moment changes.

        Args:
            vectors: From the centre to the neighbour, in Å, as the network sees them.
            sender: Neighbour of each pair.
            receiver: Centre of each pair.
            n_atoms: Number of centres.
        """
        edges = self.model.edges(vectors, sender, PairScatter(receiver, n_atoms))
        none = vectors.new_zeros(n_atoms, dtype=torch.float64)
        return PairTable(edges, self.layer.interaction.pair_weights(edges), none)

    def sums(
        self,
        magmoms: Float[Tensor, "n_senders 3"],
        species: Int[Tensor, " n_senders"],
        table: PairTable,
        *,
        directions_only: bool = False,
    ) -> list[Tensor]:
        """Sums over the pairs of a table.

        Args:
            magmoms: Moments of the senders, in μB.
            species: Index of each sender's element.
            table: The pairs.
            directions_only: Leave out what depends on the lengths of moments only, and gradients by lengths.

        Returns:
            For each centre: space (n_channels · n_harmonics), mixed to what enters the features; the crystal fields of
            the spin–orbit term; the repulsion if there is one; spin (n_spin_channels · n_harmonics · 3); its spin
            fields.
        """
        moments, basis = self._moments(magmoms, species)
        scalars = self.model.embed(basis, species)
        if directions_only:
            scalars = scalars.detach()
        hidden = Hidden(scalars=[scalars[:, :, None]], spins=None)
        for_space, for_spin = table.weights
        interaction = self.layer.interaction
        lengths: list[Tensor] = []
        if not directions_only:
            space = interaction.space(hidden.scalars, for_space, table.edges)
            mixed = [torch.matmul(w, part) for w, part in zip(self._from_space, space, strict=True)]
            lengths.append(torch.cat(mixed, dim=2))
        directions = [interaction.spin(hidden, moments, for_spin, table.edges)]
        if self.model.spin_orbit_term is not None:
            field, spin = self.model.spin_orbit_term.sums(scalars, moments, table.edges)
            lengths += [] if directions_only else field
            directions += spin
        if self.model.short_range is not None and not directions_only:
            lengths.append(table.repulsion)
        return lengths + directions

    @torch.no_grad()
    def sums_of_pairs(
        self,
        vectors: Float[Tensor, "n_pairs 3"],
        magmoms: Float[Tensor, "n_pairs 3"],
        species: Int[Tensor, " n_pairs"],
    ) -> list[tuple[Float[Tensor, "n_pairs _n_columns"], torch.Size]]:
        """What each pair adds to the sums that depend on directions, by a component of the sender's moment.

        Args:
            vectors: From the centre to the neighbour, in Å, as the network sees them.
            magmoms: Moments of the neighbours, in μB; their lengths count.
            species: Index of each neighbour's element.

        Returns:
            For each sum, columns in 1/μB, and the shape of the sum of an atom: columns times three components. Sums
            are linear in the moments at their lengths (columns of a moment of no length are zero).
        """
        along = torch.zeros_like(magmoms)
        lengths = torch.linalg.norm(magmoms, dim=1)
        along[:, 0] = lengths
        own = torch.arange(len(vectors), device=vectors.device)
        table = self.some_pairs(vectors, own, own, len(vectors))
        found = []
        for values in self.sums(along, species, table, directions_only=True):
            columns = values.reshape(len(vectors), values.shape[1:].numel() // 3, 3)[:, :, 0]
            found.append((columns / lengths.clamp(min=1e-30)[:, None], values.shape[1:]))
        return found

    @property
    def n_length_sums(self) -> int:
        """How many of the sums depend on lengths only."""
        n_fields = 0 if self.model.spin_orbit_term is None else FIELD_MAX_ELL + 1
        return 1 + n_fields + (self.model.short_range is not None)

    def energies(
        self, sums: list[Tensor], magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """Energy of each atom, in eV and float64.

        Args:
            sums: Its sums.
            magmoms: Its moment, in μB.
            species: Index of its element.
        """
        moments, basis = self._moments(magmoms, species)
        gates = self.layer.gate(basis, species)
        n = self.n_length_sums
        rows = zip(
            *(values.split(_CHUNK) for values in (sums[0], sums[n], moments, gates, species)), strict=True
        )
        interaction = torch.cat([self._exchange(*chunk) for chunk in rows])
        if self.model.spin_orbit_term is not None:
            fields = sums[1 : FIELD_MAX_ELL + 2]
            interaction = interaction + self.model.spin_orbit_term.energies(fields, sums[n + 1 :], moments)
        energies = self.model.node_energies(interaction, magmoms, species)
        return energies if self.model.short_range is None else energies + sums[n - 1]

    def _moments(
        self, magmoms: Float[Tensor, "n 3"], species: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n n_basis"]]:
        moments = self.model.seen_moments(magmoms, species)
        return moments, moment_basis(moments, self.model.config.num_moment_basis)

    def _exchange(
        self,
        space: Float[Tensor, "n n_channels n_harmonics"],
        spin: Float[Tensor, "n n_spin_channels n_spin_harmonics 3"],
        moments: Float[Tensor, "n 3"],
        gates: Float[Tensor, "n n_channels"],
        species: Int[Tensor, " n"],
    ) -> Float[Tensor, " n"]:
        """Network output of atoms from their sums: the layer of the model with atoms as the last axis."""
        partner = self.layer.interaction.partner
        x = space.permute(1, 2, 0).clone(memory_format=torch.contiguous_format)  # not the sums: it changes
        spin = spin.permute(1, 2, 3, 0).contiguous()
        centre = (spin * moments.T).sum(dim=2)
        mixed = (partner.weight * partner.norm) @ spin[:, 0].flatten(1)
        pairs = (spin * mixed.view(len(spin), 1, 3, -1)).sum(dim=2)
        start = 0
        for ell, (by_centre, by_pairs) in enumerate(zip(self._from_centre, self._from_pairs, strict=True)):
            stop = start + 2 * ell + 1
            part = by_centre @ centre[:, start:stop].flatten(1) + by_pairs @ pairs[:, start:stop].flatten(1)
            x[:, start:stop] += part.view(len(x), 2 * ell + 1, -1)
            start = stop
        x *= gates.T[:, None]
        linear = self.layer.product.linears[0]
        scalars = (linear.weight * linear.norm) @ self.polynomial(x, species)
        return self.model.readouts[0](scalars.T)

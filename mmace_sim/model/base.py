"""What every energy model tells about itself."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.base.devices import uploaded
from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.config import ArchitectureConfig
from mmace_sim.model.reference import ReferenceEnergy
from mmace_sim.model.uncertainty import Uncertainty
from mmace_sim.nn.ops import NeighborLayout, inherit_elements
from mmace_sim.nn.repulsion import NO_CROWD, NO_LIMIT, ShortRange


class MagneticModel(nn.Module):
    """Tables of elements and moments, and the properties that everything downstream reads.

    Args:
        config: Hyper-parameters.

    Attributes:
        reference: Energies of isolated atoms, which each architecture makes.
        short_range: What acts between atoms closer than those of the data, or None.
        uncertainty: What the model does not know, or None if it was not calibrated.
    """

    species_table: Tensor
    max_moment: Tensor
    scale: Tensor

    reference: ReferenceEnergy

    def __init__(self, config: ArchitectureConfig) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict = {}
        self.uncertainty: Uncertainty | None = None
        n_species = len(config.atomic_numbers)
        table = torch.full((120,), -1, dtype=torch.long)
        table[config.atomic_numbers] = torch.arange(n_species)
        self.register_buffer("species_table", table, persistent=False)
        max_moment = [config.moment_scale(z) for z in config.atomic_numbers]
        self.register_buffer("max_moment", torch.tensor(max_moment, dtype=torch.float64), persistent=False)
        self.short_range = _short_range(config)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that the model knows, ascending."""
        return self.config.atomic_numbers

    @property
    def moment_limits(self) -> dict[int, float]:
        """Moments of elements, in μB, above which an energy means nothing; empty if they have an energy everywhere."""
        return {}

    @property
    def heads(self) -> list[str]:
        """Names of the data sets with reference energies of their own."""
        return list(self.config.heads)

    @property
    def r_max(self) -> float:
        """Cutoff radius, in Å."""
        return self.config.r_max

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the network."""
        return self.scale.dtype

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.scale.device

    def set_limits(self, **limits: dict | None) -> None:
        """Change where the network ends; no weight changes.

        Args:
            **limits: Any of `repulsion`, `max_crowding`, `energy_floor` and `energy_ceiling` as in the configuration.
        """
        self.config = self.config.model_copy(update=limits)
        short_range = _short_range(self.config)
        self.short_range = short_range if short_range is None else short_range.to(self.device)

    def renew_constants(self) -> None:
        """Make the constants anew (couplings, radii, frequencies), in the present precision.

        A model that was trained in float32 and turned into float64 has rounded ones, which violate rotations by 1e-8 of
        an energy.
        """
        exact, stored = type(self)(self.config).to(self.device), self.state_dict().keys()
        constants = {name: buffer for name, buffer in exact.named_buffers() if name not in stored}
        for name, buffer in self.named_buffers():
            if name in constants:
                buffer.copy_(constants[name])

    def forward(
        self, graph: MagneticGraph, edge_vectors: Float[Tensor, "n_edges 3"] | None = None
    ) -> dict[str, Tensor]:
        """Energies of the structures of a batch.

        Args:
            graph: The batch, with pairs up to the cutoff (longer ones do no harm).
            edge_vectors: Pair vectors to use instead of the graph's own, in Å.

        Returns:
            "energy" of each structure and "node_energy" of each atom, in eV and float64.
        """
        species = self.species_of(graph)
        vectors = graph.edge_vectors() if edge_vectors is None else edge_vectors
        interaction = self.network(graph, self.seen_vectors(graph, vectors), species)
        return self.totals(graph, species, interaction, self.close_pairs(graph, vectors))

    def species_of(self, graph: MagneticGraph) -> Int[Tensor, " n_atoms"]:
        """Index of each atom's element."""
        table, numbers = self.species_table, graph.atomic_numbers
        return graph.kept.get("species", (table, numbers), lambda: table[numbers])

    def layout(self, graph: MagneticGraph, dtype: torch.dtype) -> NeighborLayout:
        """How the pairs of a batch are grouped by their centres.

        Args:
            graph: The batch.
            dtype: Of the network.
        """
        edges, n_atoms = graph.edge_index, graph.n_atoms
        if graph.pair_counts is not None:
            counts = graph.pair_counts
            return graph.kept.get(
                ("layout", dtype),
                (edges, counts),
                lambda: NeighborLayout.of_counts(counts, dtype, edges.device),
            )
        return graph.kept.get(
            ("layout", dtype), (edges,), lambda: NeighborLayout.build(edges[1], n_atoms, dtype)
        )

    def _close(self, graph: MagneticGraph, vectors: Tensor | None = None) -> Int[Tensor, " n_close"] | None:
        """Pairs that may be short, found once for a graph that says how far its pairs move, else once for vectors."""
        reach, lengths = self.short_range, graph.reference_lengths
        if reach is None:
            return None
        if lengths is None or graph.margin is None:
            if vectors is None:
                return None
            return graph.kept.get(
                "close pairs of vectors",
                (vectors, graph.edge_index, reach.onsets),
                lambda: reach.close_pairs(
                    vectors.detach().norm(dim=1), graph.edge_index, self.species_of(graph)
                ),
            )
        margin = graph.margin + 1e-6
        of = (graph.edge_index, graph.atomic_numbers, reach.onsets)  # as in `inherit`
        if graph.shortest is not None and graph.shortest > reach.largest_onset + margin:
            return graph.kept.get("no pairs", (graph.edge_index,), lambda: graph.edge_index.new_empty(0))
        return graph.kept.get(
            "close pairs",
            of,
            lambda: reach.close_pairs(lengths, graph.edge_index, self.species_of(graph), margin),
        )

    def inherit(
        self,
        graph: MagneticGraph,
        part: MagneticGraph,
        atoms: Int[np.ndarray, " n_some"],
        edges: Int[np.ndarray, " n_pairs"],
    ) -> None:
        """Let a part of a graph know what is known of the whole, so that the host need not read it again.

        Args:
            graph: The whole.
            part: Some of its systems.
            atoms: Numbers of the atoms of the part.
            edges: Numbers of its pairs.
        """
        part.kept.get("known elements", (self.species_table, part.atomic_numbers), lambda: True)
        inherit_elements(self.species_of(graph), self.species_of(part), atoms)
        close = self._close(graph)
        if close is None or not close.numel() or self.short_range is None:
            return
        known = graph.kept.get("close pairs on the host", (close,), lambda: close.cpu().numpy())
        part.kept.get(
            "close pairs",
            (part.edge_index, part.atomic_numbers, self.short_range.onsets),
            lambda: uploaded(np.flatnonzero(np.isin(edges, known)), close.device),
        )

    def seen_vectors(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"]
    ) -> Float[Tensor, "n_edges 3"]:
        """Pair vectors as the network sees them: it is blind below the shortest distances of its data.

        Args:
            graph: The batch.
            vectors: Vector of each pair from the centre to the neighbour, in Å.
        """
        if self.short_range is None:
            return vectors
        close = self._close(graph, vectors)
        return self.short_range.seen(vectors, graph.edge_index, self.species_of(graph), close)

    def close_pairs(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"]
    ) -> Float[Tensor, " n_atoms"] | float:
        """Repulsion of atoms closer or more crowded than those of the data, in eV and float64.

        Args:
            graph: The batch.
            vectors: Vector of each pair from the centre to the neighbour, in Å.
        """
        if self.short_range is None:
            return 0.0
        close = self._close(graph, vectors)
        return self.short_range.energies(vectors, graph.edge_index, self.species_of(graph), close)

    def network(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """Interaction energy of each atom, before the scale: what an architecture is.

        Args:
            graph: The batch.
            vectors: Vector of each pair from the centre to the neighbour, in Å.
            species: Index of each atom's element.
        """
        raise NotImplementedError

    def totals(
        self,
        graph: MagneticGraph,
        species: Int[Tensor, " n_atoms"],
        interaction: Float[Tensor, " n_atoms"],
        repulsion: Float[Tensor, " n_atoms"] | float = 0.0,
    ) -> dict[str, Tensor]:
        """Add reference energies and the repulsion to the scaled output of the network, and sum up each structure.

        Args:
            graph: The batch.
            species: Index of each atom's element.
            interaction: Output of the network for each atom.
            repulsion: From `close_pairs`.

        Returns:
            "energy" of each structure and "node_energy" of each atom, in eV and float64.
        """
        rows = species
        if graph.head_idx is not None:
            rows = species + len(self.elements) * graph.head_idx[graph.system_idx]
        node_energy = self.node_energies(interaction, graph.magmoms, rows) + repulsion
        energy = node_energy.new_zeros(graph.n_systems).index_add(0, graph.system_idx, node_energy)
        return {"energy": energy, "node_energy": node_energy}

    def node_energies(
        self,
        interaction: Float[Tensor, " n_atoms"],
        magmoms: Float[Tensor, "n_atoms 3"],
        species: Int[Tensor, " n_atoms"],
    ) -> Float[Tensor, " n_atoms"]:
        """Energy of each atom but the repulsion, in eV and float64: scaled output of the network and reference energy.

        Args:
            interaction: Output of the network for each atom.
            magmoms: Moments, in μB.
            species: Row of each atom in the tables of the reference.
        """
        energies = self.scale.double() * interaction.double()
        if self.short_range is not None:
            energies = self.short_range.limited(energies, species % len(self.elements))
        return energies + self.reference(magmoms, species)


def _short_range(config: ArchitectureConfig) -> ShortRange | None:
    """What acts below the distances of the data, if the configuration asks for it."""
    if config.repulsion is None:
        return None
    numbers = config.atomic_numbers
    onsets = [[config.repulsion_onset(a, b) for b in numbers] for a in numbers]
    crowding = [config.max_crowding.get(z, NO_CROWD) for z in numbers]
    limits = [
        (config.energy_floor.get(z, -NO_LIMIT), config.energy_ceiling.get(z, NO_LIMIT)) for z in numbers
    ]
    return ShortRange(config.r_max, numbers, onsets, crowding, limits)

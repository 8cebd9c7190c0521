"""Energy of a supercell when single moments change: only atoms within reach of them are evaluated again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import override

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array, eye_array
from torch import Tensor, nn

from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.pair_sums import PairSums, PairTable
from mmace_sim.sampling.hamiltonian import color_greedily

_MAX_REACH = 4
"""Neighbour steps that are tried for a model that does not tell how many layers it has."""


def reach(model: nn.Module, graph: MagneticGraph) -> int:
    """How many neighbour steps away the moment of an atom enters energies of atoms.

    Args:
        model: An energy model.
        graph: One supercell; used if the model does not tell its number of interaction layers.

    Raises:
        UnsupportedOptionError: If more than a few steps.
    """
    layers = getattr(getattr(model, "config", None), "num_interactions", None)
    return _measured_reach(model, graph) if layers is None else layers


@torch.no_grad()
def _measured_reach(model: nn.Module, graph: MagneticGraph) -> int:
    """The same from energies that change with one moment of each element, at random directions of all."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(graph.magmoms.shape, generator=generator, dtype=torch.float64).to(graph.magmoms)
    magmoms = graph.magmoms + noise
    near = _steps(graph, _MAX_REACH)
    before = model(replace(graph, magmoms=magmoms))["node_energy"]
    found = 1
    for number in graph.atomic_numbers.unique().tolist():
        atom = int(torch.nonzero(graph.atomic_numbers == number)[0])
        moved = magmoms.clone()
        moved[atom] = -1.3 * moved[atom]
        change = model(replace(graph, magmoms=moved))["node_energy"] - before
        changed = torch.nonzero(change != 0).flatten().tolist()
        inside = [set(changed) <= {atom, *csr_array(step[[atom]]).indices.tolist()} for step in near]
        if not any(inside):
            raise UnsupportedOptionError(
                f"moves = 'local': a moment changes energies more than {_MAX_REACH} neighbour steps away, or of all "
                "atoms. Take moves = 'hybrid'."
            )
        found = max(found, inside.index(True))
    return found


def _steps(graph: MagneticGraph, n_steps: int) -> list[csr_array]:
    """Which atoms are within 0, 1, … neighbour steps of each atom."""
    sender, receiver = graph.edge_index.cpu().numpy()
    n = graph.n_atoms
    step = csr_array((np.ones(len(sender)), (sender, receiver)), shape=(n, n)) + eye_array(n)
    near = [csr_array(eye_array(n))]
    for _ in range(n_steps):
        near.append(csr_array((near[-1] @ step > 0).astype(float)))
    return near


@dataclass(frozen=True)
class Color:
    """Atoms that move at once.

    Attributes:
        atoms: Atoms that move; no two affect the energy of the same atom.
        affected: Atoms whose energy changes.
        owners: Which of `atoms` affects each.
        centres: Atoms whose pairs must be summed for that if no sums are kept.
    """

    atoms: Int[Tensor, " n"]
    affected: Int[Tensor, " n_affected"]
    owners: Int[Tensor, " n_affected"]
    centres: Int[Tensor, " n_centres"]

    def repeated(self, n_copies: int, n_atoms: int) -> "Color":
        """The same atoms of several copies of a supercell that stand one after another.

        Args:
            n_copies: Number of copies.
            n_atoms: Atoms of each.
        """
        sizes = (n_atoms, n_atoms, len(self.atoms), n_atoms)
        parts = zip((self.atoms, self.affected, self.owners, self.centres), sizes, strict=True)
        return Color(*[torch.cat([part + k * size for k in range(n_copies)]) for part, size in parts])


def find_colors(graph: MagneticGraph, n_steps: int) -> list[Color]:
    """Split the atoms of a supercell into as few sets as a greedy rule finds.

    The moment of an atom enters the energies of the atoms within `n_steps` neighbour steps. Energies of the affected
    atoms need the pairs of centres up to 2 · n_steps − 1 steps away.

    Args:
        graph: One supercell.
        n_steps: From `reach`.
    """
    near = _steps(graph, 2 * n_steps - 1)
    affected = near[n_steps]
    overlap = csr_array(affected @ affected.T)
    width = int(np.diff(overlap.indptr).max())
    neighbors = np.repeat(np.arange(graph.n_atoms)[:, None], width, axis=1)
    for i, (first, last) in enumerate(pairwise(overlap.indptr)):
        neighbors[i, : last - first] = overlap.indices[first:last]
    numbers = color_greedily(neighbors)
    colors = []
    for number in range(numbers.max() + 1):
        atoms = np.flatnonzero(numbers == number)
        rows = csr_array(affected[atoms])
        owners = np.repeat(np.arange(len(atoms)), np.diff(rows.indptr))
        centres = np.unique(csr_array(near[-1][atoms]).indices)
        parts = (atoms, rows.indices, owners, centres)
        colors.append(
            Color(*[torch.as_tensor(part.astype(np.int64), device=graph.positions.device) for part in parts])
        )
    return colors


@dataclass(frozen=True)
class ColorTrial:
    """What new moments of one color would do.

    Attributes:
        changes: Change of the energy for each atom of the color, in eV.
        node_energy: New energies of the affected atoms, in eV.
        sums: Their new sums over neighbours, if sums are kept.
    """

    changes: Float[Tensor, " n"]
    node_energy: Float[Tensor, " n_affected"]
    sums: list[Tensor]


class LocalEnergy:
    """Energies of supercells, of which only the affected part is computed when moments change: for every model.

    Args:
        model: An energy model.
        graph: One supercell or several; their moments change in place.
        colors: From `find_colors`.

    Attributes:
        node_energy: Energy of each atom, in eV.
    """

    def __init__(self, model: nn.Module, graph: MagneticGraph, colors: list[Color]) -> None:
        self.model, self.colors = model, colors
        self.graph = replace(graph, magmoms=graph.magmoms.clone())
        self.node_energy = torch.zeros(graph.n_atoms, dtype=torch.float64, device=graph.positions.device)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute everything afresh."""
        self.node_energy = self.model(self.graph)["node_energy"]

    def propose(self, k: int, moments: Float[Tensor, "n 3"]) -> ColorTrial:
        """Energy changes if the moments of one color were different.

        Args:
            k: Number of the color.
            moments: Their new moments, in μB.
        """
        color = self.colors[k]
        node_energy, sums = self._affected(k, moments)
        change = (node_energy - self.node_energy[color.affected]).double()
        changes = change.new_zeros(len(moments)).index_add(0, color.owners, change)
        return ColorTrial(changes, node_energy, sums)

    @torch.no_grad()
    def _affected(
        self, k: int, moments: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n_affected"], list[Tensor]]:
        """New energies of the affected atoms, and new sums if they are kept."""
        color = self.colors[k]
        graph, nodes = self._subgraph(color.centres)
        table = torch.full((self.graph.n_atoms,), -1, dtype=torch.long, device=moments.device)
        table[nodes] = torch.arange(len(nodes), device=moments.device)
        graph.magmoms[table[color.atoms]] = moments
        return self.model(graph)["node_energy"][table[color.affected]], []

    def _subgraph(self, core: Int[Tensor, " n_core"]) -> tuple[MagneticGraph, Int[Tensor, " n_nodes"]]:
        """All pairs of the centres `core`, with the atoms that they need."""
        graph = self.graph
        inside = torch.zeros(graph.n_atoms, dtype=torch.bool, device=core.device)
        inside[core] = True
        edges = torch.nonzero(inside[graph.edge_index[1]]).flatten()
        pairs = graph.edge_index[:, edges]
        nodes = torch.unique(torch.cat([pairs.flatten(), core]))
        small = MagneticGraph(
            positions=graph.positions[nodes],
            cell=graph.cell,
            magmoms=graph.magmoms[nodes],
            atomic_numbers=graph.atomic_numbers[nodes],
            system_idx=graph.system_idx[nodes],
            edge_index=torch.searchsorted(nodes, pairs),
            edge_shifts=graph.edge_shifts[edges],
        )
        return small, nodes

    def accept(
        self, k: int, moments: Float[Tensor, "n 3"], flags: Bool[Tensor, " n"], new: ColorTrial
    ) -> None:
        """Take over some of the proposed moments.

        Args:
            k: Number of the color.
            moments: As proposed.
            flags: Which of them.
            new: From `propose`.
        """
        color = self.colors[k]
        taken = flags[color.owners]
        self.node_energy[color.affected[taken]] = new.node_energy[taken]
        self.graph.magmoms[color.atoms[flags]] = moments[flags]


class KeptSums(LocalEnergy):
    """The same for models that offer `PairSums`: only pairs of the changed moments are summed again.

    Rounding adds up in the kept sums (10⁻⁷ of them in each step in single precision) until `refresh`.

    Args:
        terms: The model in two parts.
        graph: One supercell or several; their moments change in place.
        colors: From `find_colors`.
        tables: Pairs of each color, from `_moved_pairs`.
        fixed_lengths: Whether proposed moments are as long as the old ones.
    """

    def __init__(
        self,
        terms: PairSums,
        graph: MagneticGraph,
        colors: list[Color],
        tables: list[PairTable],
        *,
        fixed_lengths: bool,
    ) -> None:
        self.terms, self.tables, self.fixed_lengths = terms, tables, fixed_lengths
        self.species = terms.model.species_table[graph.atomic_numbers]
        super().__init__(terms.model, graph, colors)

    @override
    @torch.no_grad()
    def refresh(self) -> None:
        magmoms = self.graph.magmoms
        self.sums = self.terms.sums(magmoms, self.species, self.terms.table(self.graph))
        self.node_energy = self.terms.energies(self.sums, magmoms, self.species)

    @override
    @torch.no_grad()
    def _affected(
        self, k: int, moments: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n_affected"], list[Tensor]]:
        color, table = self.colors[k], self.tables[k]
        magmoms = self.graph.magmoms.clone()
        old, moving = magmoms[color.atoms], self.species[color.atoms]
        magmoms[color.atoms] = moments
        sums = [kept[color.affected] for kept in self.sums]
        changing = sums[self.terms.n_length_sums :] if self.fixed_lengths else sums
        before, after = (
            self.terms.sums(m, moving, table, directions_only=self.fixed_lengths) for m in (old, moments)
        )
        for values, less, more in zip(changing, before, after, strict=True):
            values += more - less
        return self.terms.energies(sums, magmoms[color.affected], self.species[color.affected]), sums

    @override
    def accept(
        self, k: int, moments: Float[Tensor, "n 3"], flags: Bool[Tensor, " n"], new: ColorTrial
    ) -> None:
        super().accept(k, moments, flags, new)
        color = self.colors[k]
        taken = flags[color.owners]
        for kept, values in zip(self.sums, new.sums, strict=True):
            kept[color.affected[taken]] = values[taken]


def _moved_pairs(terms: PairSums, graph: MagneticGraph, colors: list[Color]) -> list[PairTable]:
    """The pairs that the moments of each color enter: from each of its atoms to their neighbours."""
    vectors = terms.model.seen_vectors(graph, graph.edge_vectors())
    sender, receiver = graph.edge_index
    tables = []
    place = torch.full((graph.n_atoms,), -1, dtype=torch.long, device=vectors.device)
    for color in colors:
        place[color.atoms] = torch.arange(len(color.atoms), device=vectors.device)
        pairs = torch.nonzero(place[sender] >= 0).flatten()
        senders = place[sender[pairs]]
        place[color.affected] = torch.arange(len(color.affected), device=vectors.device)
        receivers = place[receiver[pairs]]
        place.fill_(-1)
        tables.append(terms.some_pairs(vectors[pairs], senders, receivers, len(color.affected)))
    return tables


def local_energies(
    model: nn.Module, graphs: Sequence[MagneticGraph], colors: list[Color], *, fixed_lengths: bool
) -> list[LocalEnergy]:
    """Energies of supercells by the fastest way that the model offers.

    Args:
        model: An energy model.
        graphs: Graphs that differ in their moments only, each of one supercell or several.
        colors: Of all atoms of one of them.
        fixed_lengths: Whether lengths of moments stay as they are.
    """
    if not PairSums.offered_by(model):
        return [LocalEnergy(model, graph, colors) for graph in graphs]
    terms = PairSums(model)
    tables = _moved_pairs(terms, graphs[0], colors)
    return [KeptSums(terms, graph, colors, tables, fixed_lengths=fixed_lengths) for graph in graphs]

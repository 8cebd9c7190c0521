"""Metropolis moves of single moments on the energy of a model: only atoms within its reach are evaluated again."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array, eye_array
from torch import Tensor, nn

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.workflows.curie.chains import by_record
from mmace_sim.workflows.curie.lattice import color_greedily
from mmace_sim.workflows.curie.surface import RECORDS, Supercells

_TARGET = 0.45
_GAIN = 0.2


def reach(model: nn.Module) -> int:
    """How many neighbour steps the energy of an atom depends on: one for each interaction layer.

    Args:
        model: An energy model.
    """
    return getattr(getattr(model, "config", None), "num_interactions", 1)


@dataclass(frozen=True)
class Color:
    """Atoms that move at once.

    Attributes:
        atoms: Atoms that move; no two affect the energy of the same atom.
        affected: Atoms whose energy changes.
        owners: Which of `atoms` affects each.
        centres: Atoms whose pairs must be summed for that.
    """

    atoms: Int[Tensor, " n"]
    affected: Int[Tensor, " n_affected"]
    owners: Int[Tensor, " n_affected"]
    centres: Int[Tensor, " n_centres"]


def find_colors(graph: MagneticGraph, n_steps: int) -> list[Color]:
    """Split the atoms of a supercell into as few sets as a greedy rule finds.

    The moment of an atom enters the energies of the atoms within `n_steps` neighbour steps. Energies of the affected
    atoms need the pairs of centres up to 2 · n_steps − 1 steps away.

    Args:
        graph: One supercell.
        n_steps: Interaction layers of the model.
    """
    sender, receiver = graph.edge_index.cpu().numpy()
    n = graph.n_atoms
    step = csr_array((np.ones(len(sender)), (sender, receiver)), shape=(n, n)) + eye_array(n)
    near = [csr_array(eye_array(n))]
    for _ in range(2 * n_steps - 1):
        near.append(csr_array((near[-1] @ step > 0).astype(float)))
    affected = near[n_steps]
    overlap = csr_array(affected @ affected.T)
    width = int(np.diff(overlap.indptr).max())
    neighbors = np.repeat(np.arange(n)[:, None], width, axis=1)
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


def sweep_cost(colors: list[Color]) -> float:
    """What one move of every atom costs, in energies of the whole supercell: atoms whose pairs are summed, per atom.

    Args:
        colors: From `find_colors`.
    """
    return sum(len(color.centres) for color in colors) / sum(len(color.atoms) for color in colors)


class LocalEnergy:
    """Energy of one supercell, of which only the affected part is computed when moments change.

    Args:
        model: An energy model.
        graph: The supercell; its moments change in place.

    Attributes:
        node_energy: Energy of each atom, in eV.
    """

    def __init__(self, model: nn.Module, graph: MagneticGraph) -> None:
        self.model, self.graph = model, replace(graph, magmoms=graph.magmoms.clone())
        self.node_energy = torch.zeros(graph.n_atoms, dtype=torch.float64, device=graph.positions.device)
        self.refresh()

    def refresh(self) -> None:
        """Compute the energies of all atoms afresh."""
        with torch.no_grad():
            self.node_energy = self.model(self.graph)["node_energy"].detach()

    def propose(
        self, color: Color, moments: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n_affected"]]:
        """Energy changes if the moments of one color were different.

        Args:
            color: Which atoms.
            moments: Their new moments, in μB.

        Returns:
            Change for each atom of the color, and new energies of the affected atoms, in eV.
        """
        graph, nodes = self._subgraph(color.centres)
        table = torch.full((self.graph.n_atoms,), -1, dtype=torch.long, device=moments.device)
        table[nodes] = torch.arange(len(nodes), device=moments.device)
        graph.magmoms[table[color.atoms]] = moments
        with torch.no_grad():
            new = self.model(graph)["node_energy"][table[color.affected]]
        change = (new - self.node_energy[color.affected]).double()
        return change.new_zeros(len(moments)).index_add(0, color.owners, change), new

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
            system_idx=torch.zeros(len(nodes), dtype=torch.long, device=core.device),
            edge_index=torch.searchsorted(nodes, pairs),
            edge_shifts=graph.edge_shifts[edges],
        )
        return small, nodes

    def accept(
        self,
        color: Color,
        moments: Float[Tensor, "n 3"],
        flags: Bool[Tensor, " n"],
        node_energy: Float[Tensor, " n_affected"],
    ) -> None:
        """Take over some of the proposed moments.

        Args:
            color: As proposed.
            moments: As proposed.
            flags: Which of them.
            node_energy: New energies of the affected atoms, from `propose`.
        """
        taken = flags[color.owners]
        self.node_energy[color.affected[taken]] = node_energy[taken]
        self.graph.magmoms[color.atoms[flags]] = moments[flags]


class LocalMoves:
    """Samples exp(−E/kT) by Metropolis moves of one moment each, color by color, at fixed atoms.

    Fixed |m|: the direction plus a Gaussian step, normalised. Variable |m|: the moment plus a Gaussian step in ℝ³
    (measure d³m). Steps adapt to an acceptance of 45 % while equilibrating.

    Args:
        cells: Supercells at their temperatures.
        lengths: "fixed" or "variable" |m|.
        step: First Gaussian step, in rad or μB.
        n_adapt: Sweeps in which steps adapt; they must not count.
    """

    records = RECORDS

    def __init__(
        self, cells: Supercells, *, lengths: str = "fixed", step: float = 0.3, n_adapt: int = 0
    ) -> None:
        self.cells, self.on_sphere, self.n_adapt, self.n_done = cells, lengths == "fixed", n_adapt, 0
        self.log_step = torch.full((len(cells),), float(np.log(step)), dtype=torch.float64)
        self._set_up()

    def _set_up(self) -> None:
        model, n_chains = self.cells.model, len(self.cells.chains)
        graphs = [self.cells.single_graph(k) for k in range(len(self.cells))]
        self.local = [LocalEnergy(model, graph) for graph in graphs]
        colors = [find_colors(graph, reach(model)) for graph in graphs[::n_chains]]
        self.colors = [row for row in colors for _ in range(n_chains)]

    def advance(self, block: int, n_sweeps: int) -> dict[str, Float[np.ndarray, "n_sweeps n_sizes n_chains"]]:
        """Run sweeps, each moving every magnetic atom once, and observe after each.

        Args:
            block: Number of the block, from 0; it decides the random numbers.
            n_sweeps: Sweeps.

        Returns:
            See `Supercells.observe`.
        """
        generators = self.cells.generators(block)
        for part in self.local:
            part.refresh()
        observed = []
        for _ in range(n_sweeps):
            rates = torch.tensor([self._sweep(k, g) for k, g in enumerate(generators)])
            if self.n_done < self.n_adapt:
                self.log_step += _GAIN * (rates - _TARGET)
            self.cells.moments = [part.graph.magmoms for part in self.local]
            energies = torch.stack([part.node_energy.double().sum() for part in self.local])
            observed.append(self.cells.observe(energies, rates))
            self.n_done += 1
        return by_record(self.records, np.array(observed))

    def _sweep(self, k: int, generator: torch.Generator) -> float:
        local, accepted = self.local[k], 0
        step, beta = float(torch.exp(self.log_step[k])), float(self.cells.beta[k])
        for color in self.colors[k]:
            old = local.graph.magmoms[color.atoms]
            noise = torch.randn(old.shape, generator=generator, dtype=torch.float64).to(old)
            uniform = torch.rand(len(old), generator=generator, dtype=torch.float64).to(old.device)
            new = self._moved(old, step * noise)
            change, node_energy = local.propose(color, new)
            flags = uniform < torch.exp(-beta * change.nan_to_num(nan=torch.inf))
            local.accept(color, new, flags, node_energy)
            accepted += int(flags.sum())
        return accepted / local.graph.n_atoms

    def _moved(self, old: Float[Tensor, "n 3"], noise: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        if not self.on_sphere:
            return old + noise
        lengths = torch.linalg.norm(old, dim=1, keepdim=True)
        unit = old / lengths.clamp(min=1e-30) + noise
        return lengths * unit / torch.linalg.norm(unit, dim=1, keepdim=True)

    def state(self) -> dict[str, np.ndarray]:
        """Moments and steps."""
        return self.cells.state() | {"log_step": self.log_step.numpy(), "n_done": np.array(self.n_done)}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` gave.

        Args:
            state: Moments and steps.
        """
        self.cells.load_state(state)
        self.log_step, self.n_done = torch.as_tensor(state["log_step"]), int(state["n_done"])
        self._set_up()

"""Neighbour pairs that are kept while nothing moves far: the host is asked once for each step, or not at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_sim.state import SimState

from mmace_sim.base.devices import uploaded
from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.graph.neighbors import default_backend, neighbor_list, pairs_on_host
from mmace_sim.model.derivatives import ordinary

GPU_SKIN: float = 0.5
"""Å by which pairs beyond the cutoff are kept on a GPU, where finding pairs stalls everything."""

CPU_SKIN: float = 0.0
"""On a CPU pairs are found in 2 % of the time of an evaluation, and each that is too long costs like any other."""

_PATIENCE = 16
"""Evaluations of the same positions after which the host asks whether something is wrong."""
_ROUNDING = 1e-4


class HostQuestions:
    """Questions whose answers can wait for the next time that the host reads anything."""

    def __init__(self) -> None:
        self._flag: Tensor | None = None
        self._act: Callable[[], None] | None = None
        self._waited = 0

    def ask(self, flag: Bool[Tensor, ""], act: Callable[[], None]) -> None:
        """Add a question.

        Args:
            flag: Whether to act.
            act: What to do; of several questions that wait, the first that was asked is done.
        """
        if self._flag is None:
            self._flag, self._act = flag, act
        else:
            self._flag = self._flag | flag
        self._waited += 1

    @property
    def is_urgent(self) -> bool:
        """Whether a question has waited long."""
        return self._waited >= _PATIENCE

    def settle(self) -> None:
        """Answer what waits at once."""
        if self._flag is not None:
            self.answered(bool(self._flag))

    def flag(self, like: Tensor) -> Bool[Tensor, " 1"]:
        """What waits, to be read with something else.

        Args:
            like: A tensor on the device.
        """
        if self._flag is None:
            return torch.zeros(1, dtype=torch.bool, device=like.device)
        return self._flag.reshape(1)

    def answered(self, flag: bool) -> None:
        """Act on an answer.

        Args:
            flag: What was read.
        """
        act, self._flag, self._act, self._waited = self._act, None, None, 0
        if flag and act is not None:
            act()


@dataclass(frozen=True)
class PartOfGraph:
    """Some systems of a graph.

    Attributes:
        graph: Their graph.
        atoms: Numbers of their atoms in the whole one.
        edges: Numbers of their pairs.
        rows: The atoms' on the device.
        numbers: Numbers of the systems on the device.
    """

    graph: MagneticGraph
    atoms: Int[np.ndarray, " n_some"]
    edges: Int[np.ndarray, " n_pairs"]
    rows: Int[Tensor, " n_some"]
    numbers: Int[Tensor, " n_chosen"]


class PairKeeper:
    """The neighbour graph of a state, with the pairs of the last one while these hold.

    Pairs are found up to r_max + skin. They hold for a cell C that was C₀ while ‖C₀⁻¹C − 1‖ (r_max + skin) + 2 max|u|
    ≤ skin, with u what atoms have moved beside the strain: then no pair within the cutoff is missing. Tensors that are
    the very same as in the last call, and untouched since, cost no question at all.

    Args:
        r_max: Cutoff radius, in Å.
        skin: In Å; 0 finds the pairs anew whenever something has moved. None chooses by device.
        backend: Of `mmace_sim.graph.neighbors`; None chooses by device.
    """

    def __init__(self, r_max: float, skin: float | None = None, backend: str | None = None) -> None:
        self.r_max, self.skin, self.backend = r_max, skin, backend
        self.n_searches = 0
        self.questions = HostQuestions()
        self._graph: MagneticGraph | None = None
        self._seen: tuple[Tensor, ...] = ()
        self._versions: tuple[int, ...] = ()
        self._atoms: tuple[Tensor, ...] = ()
        self._counts: np.ndarray = np.zeros(0, dtype=np.int64)
        self._pbc: np.ndarray = np.zeros((0, 3), dtype=bool)
        self._reference: tuple[Tensor, Tensor, Tensor] | None = None
        self._systems: tuple[int, ...] = ()

    def graph(self, state: SimState, magmoms: Float[Tensor, "n_atoms 3"]) -> MagneticGraph:
        """The graph of a state.

        Args:
            state: Any state.
            magmoms: Its moments, in μB.
        """
        last = self._graph
        if last is not None and self._is_same(state):
            if self.questions.is_urgent:
                self.questions.settle()
            return replace(last, magmoms=magmoms)
        skin = self._skin(state)
        known = self._has_same_atoms(state)
        positions, cell = state.positions.detach(), state.cell.detach().mT.contiguous()
        if known and last is not None and not self._has_moved(last, positions, cell):
            graph = replace(last, positions=ordinary(positions), cell=ordinary(cell), magmoms=magmoms)
        else:
            graph = self._search(positions, cell, magmoms, skin)
        self._graph = graph
        self._remember(state)
        return graph

    def part(self, graph: MagneticGraph, systems: Sequence[int]) -> PartOfGraph:
        """Some systems of the last graph; what they share is worked out once for those that were asked for last.

        Args:
            graph: What `graph` gave last.
            systems: Numbers of the systems, ascending.
        """
        asked = tuple(systems)
        if asked != self._systems:
            self._systems = asked  # else the very same object, as `Memo` compares
        of = (graph.edge_index, graph.atomic_numbers, self._systems)
        found = graph.kept.get("part", of, lambda: self._find_part(graph, asked))
        now = replace(
            found.graph,
            positions=graph.positions[found.rows],
            cell=graph.cell,
            magmoms=graph.magmoms[found.rows],
        )
        return replace(found, graph=now)

    def _find_part(self, graph: MagneticGraph, systems: tuple[int, ...]) -> PartOfGraph:
        pairs = graph.pair_counts
        if pairs is None:  # once for each search
            receiver, n = graph.edge_index[1], graph.n_atoms
            pairs = graph.kept.get(
                "pairs of atoms",
                (graph.edge_index,),
                lambda: torch.bincount(receiver, minlength=n).cpu().numpy(),
            )
        atom_ends, pair_ends = np.cumsum(self._counts), np.concatenate([[0], np.cumsum(pairs)])
        atoms = [np.arange(atom_ends[k] - self._counts[k], atom_ends[k]) for k in systems]
        edges = np.concatenate([np.arange(pair_ends[a[0]], pair_ends[a[-1] + 1]) for a in atoms])
        rows = np.concatenate(atoms)
        device = graph.positions.device
        return PartOfGraph(
            graph=replace(graph.part(rows, edges), pair_counts=pairs[rows]),
            atoms=rows,
            edges=edges,
            rows=uploaded(rows, device),
            numbers=uploaded(np.array(systems), device),
        )

    def _skin(self, state: SimState) -> float:
        if self.skin is not None:
            return self.skin
        return CPU_SKIN if state.device.type == "cpu" else GPU_SKIN

    def _is_same(self, state: SimState) -> bool:
        now = (state.positions, state.cell, *_atoms(state))
        if self._graph is None or any(t.is_inference() for t in (*now, *self._seen)):
            return False
        return all(a is b for a, b in zip(now, self._seen, strict=True)) and self._versions == _versions(now)

    def _remember(self, state: SimState) -> None:
        self._seen = (state.positions, state.cell, *_atoms(state))
        inference = any(t.is_inference() for t in self._seen)
        self._versions = () if inference else _versions(self._seen)

    def _has_same_atoms(self, state: SimState) -> bool:
        """Whether a state holds the atoms of the last one in the same order; if not, read what the host must know."""
        now = _atoms(state)
        last, untouched = self._seen[2:], self._versions[2:]
        if last and not any(t.is_inference() for t in (*now, *last)):
            same = all(a is b for a, b in zip(now, last, strict=True))
            if same and untouched == _versions(now):
                return True
        if self._atoms and all(
            a.shape == b.shape and a.device == b.device and torch.equal(a, b)
            for a, b in zip(now, self._atoms, strict=True)
        ):
            return True
        self._atoms = tuple(t.clone() for t in now)
        numbers, system_idx, pbc = now
        n_systems = state.cell.shape[0]
        read = torch.cat([system_idx, pbc.expand(n_systems, 3).flatten().to(system_idx)]).cpu().numpy()
        self._counts = np.bincount(read[: len(numbers)], minlength=n_systems)
        self._pbc = read[len(numbers) :].reshape(n_systems, 3).astype(bool)
        self._reference = None
        return False

    def _has_moved(
        self,
        last: MagneticGraph,
        positions: Float[Tensor, "n_atoms 3"],
        cell: Float[Tensor, "n_systems 3 3"],
    ) -> bool:
        """Whether a pair within the cutoff may be missing; answers what waits, too."""
        if self._reference is None or last.margin is None:
            return True
        where, inverse, box = self._reference
        skin, idx = last.margin, last.system_idx
        unchanged = (cell == box).flatten(1).all(dim=1)
        one = _one(cell)
        change = torch.where(unchanged[:, None, None], one, inverse @ cell)
        strain = (change - one).flatten(1).norm(dim=1)
        moved = (positions - torch.einsum("na,nab->nb", where, change[idx])).norm(dim=1)
        largest = moved.new_zeros(len(cell)).scatter_reduce(0, idx, moved, "amax", include_self=True)
        needed = strain * (self.r_max + skin) + 2.0 * largest
        flags = torch.cat([(needed > skin * (1.0 - _ROUNDING)).any().reshape(1), self.questions.flag(cell)])
        moved_far, wrong = flags.tolist()
        self.questions.answered(wrong)
        return moved_far

    def _search(
        self,
        positions: Float[Tensor, "n_atoms 3"],
        cell: Float[Tensor, "n_systems 3 3"],
        magmoms: Float[Tensor, "n_atoms 3"],
        skin: float,
    ) -> MagneticGraph:
        self.n_searches += 1
        numbers, system_idx, _ = self._atoms
        shortest, counts = None, None
        with torch.inference_mode(mode=False):
            if (self.backend or default_backend(positions)) == "matscipy":
                flag = self.questions.flag(positions).to(positions)
                parts = (positions.flatten(), cell.flatten(), flag)
                read = torch.cat(parts).cpu().numpy()
                r, c = (
                    read[: positions.numel()].reshape(-1, 3),
                    read[positions.numel() : -1].reshape(-1, 3, 3),
                )
                self.questions.answered(bool(read[-1]))
                edges, shifts, counts, shortest = pairs_on_host(
                    r, c, self._pbc, self._counts, self.r_max + skin
                )
                edge_index = torch.as_tensor(edges, device=positions.device)
                edge_shifts = torch.as_tensor(shifts, dtype=positions.dtype, device=positions.device)
            else:
                pbc = torch.as_tensor(self._pbc, device=positions.device)
                edge_index, edge_shifts = neighbor_list(
                    positions, cell, pbc, system_idx, self.r_max + skin, backend=self.backend
                )
            graph = MagneticGraph(
                positions=ordinary(positions),
                cell=ordinary(cell),
                magmoms=magmoms,
                atomic_numbers=numbers,
                system_idx=system_idx,
                edge_index=edge_index,
                edge_shifts=edge_shifts,
                margin=skin,
                pair_counts=counts,
                shortest=shortest,
            )
            if self._graph is not None:
                graph.kept = self._graph.kept
            graph.reference_lengths = graph.edge_vectors().norm(dim=1)
            self._reference = None if skin == 0.0 else (positions.clone(), _inverse(cell), cell.clone())
        return graph


def _inverse(cell: Float[Tensor, "n_systems 3 3"]) -> Float[Tensor, "n_systems 3 3"]:
    """Inverse cells; infinite for those without a volume, which may not change at all."""
    regular = (torch.linalg.det(cell).abs() > 1e-6)[:, None, None]
    safe = torch.where(regular, cell, _one(cell))
    return torch.where(regular, torch.linalg.inv_ex(safe).inverse, torch.inf)


def _one(like: Tensor) -> Float[Tensor, "3 3"]:
    return torch.eye(3, dtype=like.dtype, device=like.device)


def _atoms(state: SimState) -> tuple[Int[Tensor, " n_atoms"], Int[Tensor, " n_atoms"], Bool[Tensor, "..."]]:
    return state.atomic_numbers, state.system_idx, state.pbc


def _versions(tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
    return tuple(t._version for t in tensors)

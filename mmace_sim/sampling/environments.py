"""Sums over neighbours in crystals: atoms with the same surroundings share one matrix."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.pair_sums import PairSums

_GRID = 1e-3
"""Å (and μB) within which surroundings are the same."""
_OFFSET = 0.2718
"""Of the grid, so that round numbers are not at its borders."""
_LEAST_ATOMS = 4
"""Fewer atoms with the same surroundings than this on average are not worth a matrix."""


@dataclass(frozen=True)
class Environment:
    """Atoms whose neighbours stand alike.

    Attributes:
        members: The atoms.
        senders: Neighbours of each, in the same order.
        matrices: What a moment of each neighbour adds to each column of each sum, by its component along an axis.
    """

    members: Int[Tensor, " n_members"]
    senders: Int[Tensor, "n_neighbors n_members"]
    matrices: list[Float[Tensor, "_n_columns n_neighbors"]]

    def sums(self, magmoms: Float[Tensor, "n_atoms 3"]) -> list[Float[Tensor, "_n_columns 3 n_members"]]:
        """Sums of its members; atoms are the last axis.

        Args:
            magmoms: Moments of all atoms, in μB.
        """
        sent = magmoms.index_select(0, self.senders.flatten()).view(*self.senders.shape, 3)
        rows = sent.transpose(1, 2).flatten(1)
        return [(matrix @ rows).view(len(matrix), 3, -1) for matrix in self.matrices]


class Environments:
    """The sums of `PairSums` that depend on directions, at fixed places and lengths of moments.

    Args:
        terms: The model in two parts.
        graph: Supercells.
        magmoms: Their moments, whose lengths stay; in μB.
        found: From `find`.
    """

    def __init__(
        self,
        terms: PairSums,
        graph: MagneticGraph,
        magmoms: Float[Tensor, "n_atoms 3"],
        found: list[tuple[Int[np.ndarray, " n"], Int[np.ndarray, "n n_neighbors"]]],
    ) -> None:
        vectors = terms.model.seen_vectors(graph, graph.edge_vectors())
        species = terms.model.species_table[graph.atomic_numbers]
        sender, device = graph.edge_index[0], magmoms.device
        self.parts, self.shapes = [], []
        for members, rows in found:
            pairs = torch.as_tensor(rows, device=device)
            one = pairs[0]
            sums = terms.sums_of_pairs(vectors[one], magmoms[sender[one]], species[sender[one]])
            self.shapes = [shape for _, shape in sums]
            matrices = [columns.T.contiguous() for columns, _ in sums]
            where = torch.as_tensor(members, device=device)
            self.parts.append(Environment(where, sender[pairs].T.contiguous(), matrices))
        order = torch.cat([part.members for part in self.parts])
        self.place = torch.argsort(order) if len(self.parts) > 1 else None

    def sums(self, magmoms: Float[Tensor, "n_atoms 3"]) -> list[Tensor]:
        """What `PairSums.sums` gives of directions only.

        Args:
            magmoms: In μB.
        """
        parts = [part.sums(magmoms) for part in self.parts]
        out = []
        for values, shape in zip(zip(*parts, strict=True), self.shapes, strict=True):
            whole = values[0] if self.place is None else torch.cat(values, dim=2)[:, :, self.place]
            out.append(whole.reshape(*shape, -1).movedim(-1, 0))
        return out


def find_environments(
    terms: PairSums, graph: MagneticGraph, magmoms: Float[Tensor, "n_atoms 3"]
) -> list[tuple[Int[np.ndarray, " n"], Int[np.ndarray, "n n_neighbors"]]]:
    """Atoms with the same surroundings, if there are many of each kind.

    Args:
        terms: The model in two parts.
        graph: Supercells.
        magmoms: Their moments, in μB.

    Returns:
        Members and their pairs in the same order, for each kind; nothing if atoms differ too much.
    """
    vectors = terms.model.seen_vectors(graph, graph.edge_vectors())
    sender, receiver = graph.edge_index.cpu().numpy()
    lengths = torch.linalg.norm(magmoms, dim=1)[:, None]
    measured = torch.cat([vectors, lengths[graph.edge_index[0]]], dim=1).double().cpu().numpy()
    marks = np.floor(measured / _GRID + _OFFSET).astype(np.int64)
    marks = np.column_stack([marks, graph.atomic_numbers.cpu().numpy()[sender]])
    order = np.lexsort((*marks.T, receiver))
    counts = np.bincount(receiver, minlength=graph.n_atoms)
    starts = np.cumsum(counts) - counts
    found = []
    for width in np.unique(counts):
        members = np.flatnonzero(counts == width)
        rows = order[starts[members, None] + np.arange(width)]
        _, kind = np.unique(marks[rows].reshape(len(members), -1), axis=0, return_inverse=True)
        kind = kind.ravel()
        found += [(members[kind == k], rows[kind == k]) for k in range(kind.max() + 1)]
    return found if len(found) * _LEAST_ATOMS <= graph.n_atoms else []

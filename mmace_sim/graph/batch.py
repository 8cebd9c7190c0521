"""A batch of structures as one graph."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmace_sim.base.devices import uploaded
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.neighbors import neighbor_list


class Memo:
    """What was worked out of some objects, for as long as graphs have these very objects.

    Shapes, groupings and tables depend on the pairs or the elements alone: a solver that moves atoms by little, or only
    moments, needs them once. What is kept is made outside of inference mode, so that derivatives can use it.
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, tuple[tuple[object, ...], list[int], object]] = {}

    def get[T](self, name: Hashable, of: tuple[object, ...], make: Callable[[], T]) -> T:
        """What is kept under a name, made if it is not there or was made of other objects.

        Args:
            name: What it is.
            of: The objects that it is made of.
            make: Makes it.
        """
        owners, changes, found = self._found.get(name, ((), [], None))
        same = len(owners) == len(of) and all(a is b for a, b in zip(owners, of, strict=True))
        if not same or changes != _changes(of):
            with torch.inference_mode(mode=False):
                found = make()
            self._found[name] = (of, _changes(of), found)
        return cast(T, found)


def _changes(objects: tuple[object, ...]) -> list[int]:
    """How often each tensor was changed in place, as far as torch counts that."""
    return [x._version if isinstance(x, Tensor) and not x.is_inference() else 0 for x in objects]


@dataclass
class MagneticGraph:
    """Structures of one batch, their moments and their neighbour pairs.

    Attributes:
        positions: Cartesian positions, in Å.
        cell: Cell vectors as rows, in Å.
        magmoms: Magnetic moments, in μB.
        atomic_numbers: Atomic number of each atom.
        system_idx: Structure of each atom, ascending.
        edge_index: Pairs (sender, receiver) sorted by receiver, the centre.
        edge_shifts: Shift of each sender in cell vectors (integers).
        head_idx: Head of each structure, whose isolated-atom and one-body energies count; None means the first.
        margin: No pair is shorter by more than this, in Å, than when the pairs were found, and none within the cutoff
            is missing; None if pairs may be anywhere.
        reference_lengths: Distances when the pairs were found, in Å, where there is a margin.
        shortest: The smallest of these, where the host knows it.
        pair_counts: Number of pairs of each centre, where the host knows it.
        kept: What was worked out of the pairs and the elements.
    """

    positions: Float[Tensor, "n_atoms 3"]
    cell: Float[Tensor, "n_systems 3 3"]
    magmoms: Float[Tensor, "n_atoms 3"]
    atomic_numbers: Int[Tensor, " n_atoms"]
    system_idx: Int[Tensor, " n_atoms"]
    edge_index: Int[Tensor, "2 n_edges"]
    edge_shifts: Float[Tensor, "n_edges 3"]
    head_idx: Int[Tensor, " n_systems"] | None = None
    margin: float | None = None
    reference_lengths: Float[Tensor, " n_edges"] | None = None
    shortest: float | None = None
    pair_counts: np.ndarray | None = None
    kept: Memo = field(default_factory=Memo, repr=False, compare=False)

    @property
    def n_systems(self) -> int:
        """Number of structures."""
        return self.cell.shape[0]

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all structures together."""
        return self.positions.shape[0]

    def map(self, change: Callable[[Tensor], Tensor]) -> "MagneticGraph":
        """The graph with every tensor changed, such as moved to another device.

        Args:
            change: Makes the new tensor from the old.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {k: change(v) if isinstance(v, Tensor) else v for k, v in values.items()}
        return MagneticGraph(**changed)

    def part(self, atoms: Int[np.ndarray, " n_some"], edges: Int[np.ndarray, " n_pairs"]) -> "MagneticGraph":
        """The graph of some systems; the others are still there, without atoms. The host reads nothing.

        Args:
            atoms: Numbers of all atoms of these systems, ascending.
            edges: Numbers of all their pairs, ascending.
        """
        device = self.positions.device
        place = np.zeros(self.n_atoms, dtype=np.int64)
        place[atoms] = np.arange(len(atoms))
        rows, columns = uploaded(atoms, device), uploaded(edges, device)
        of_atoms = {
            name: getattr(self, name)[rows]
            for name in ("positions", "magmoms", "atomic_numbers", "system_idx")
        }
        return replace(
            self,
            **of_atoms,
            edge_index=uploaded(place, device)[self.edge_index[:, columns]],
            edge_shifts=self.edge_shifts[columns],
            reference_lengths=None if self.reference_lengths is None else self.reference_lengths[columns],
            pair_counts=None,
            kept=Memo(),
        )

    def edge_vectors(self) -> Float[Tensor, "n_edges 3"]:
        """Vectors from each centre to its neighbour, in Å."""
        sender, receiver = self.edge_index
        vectors = self.positions[sender] - self.positions[receiver]
        cell = self.cell[self.system_idx[receiver]]
        return vectors + torch.einsum("ei,eij->ej", self.edge_shifts, cell)


def sum_by_system(
    values: Float[Tensor, "n ..."], system_idx: Int[Tensor, " n"], n_systems: int
) -> Float[Tensor, "n_systems ..."]:
    """Sums of each system, added up in float64: in single precision every addition rounds to a part of the whole sum.

    Args:
        values: Of atoms or pairs.
        system_idx: System of each.
        n_systems: Number of systems.

    Returns:
        In the type of the values.
    """
    zeros = torch.zeros(n_systems, *values.shape[1:], dtype=torch.float64, device=values.device)
    return zeros.index_add(0, system_idx, values.double()).to(values.dtype)


def build_graph(
    positions: Float[Tensor, "n_atoms 3"],
    cell: Float[Tensor, "n_systems 3 3"],
    pbc: Bool[Tensor, "..."],
    atomic_numbers: Int[Tensor, " n_atoms"],
    magmoms: Float[Tensor, "n_atoms 3"],
    system_idx: Int[Tensor, " n_atoms"],
    r_max: float,
) -> MagneticGraph:
    """Find the neighbours of every atom and assemble the batch.

    Args:
        positions: Cartesian positions, in Å.
        cell: Cell vectors as rows, in Å.
        pbc: Periodic directions, of shape (3,) for all or (n_systems, 3).
        atomic_numbers: Atomic number of each atom.
        magmoms: Magnetic moments, in μB.
        system_idx: Structure of each atom, ascending.
        r_max: Cutoff radius, in Å.
    """
    pbc = pbc.expand(cell.shape[0], 3) if pbc.ndim == 1 else pbc
    edge_index, edge_shifts = neighbor_list(positions, cell, pbc, system_idx, r_max)
    return MagneticGraph(
        positions=positions,
        cell=cell,
        magmoms=magmoms,
        atomic_numbers=atomic_numbers.long(),
        system_idx=system_idx,
        edge_index=edge_index,
        edge_shifts=edge_shifts,
    )


def graph_from_atoms(
    atoms: Sequence[Atoms] | Atoms,
    r_max: float,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> MagneticGraph:
    """The graph of one or several ASE structures with their moments.

    Args:
        atoms: Structures that carry moments (see :func:`mmace_sim.graph.atoms.get_magmoms`).
        r_max: Cutoff radius, in Å.
        device: Where the tensors live.
        dtype: Floating-point type of the tensors.

    Raises:
        MissingMomentsError: If a structure has no moments.
    """
    images = [atoms] if isinstance(atoms, Atoms) else list(atoms)
    return build_graph(
        torch.as_tensor(np.concatenate([a.positions for a in images]), dtype=dtype, device=device),
        torch.as_tensor(np.stack([a.cell.array for a in images]), dtype=dtype, device=device),
        torch.as_tensor(np.stack([a.pbc for a in images]), device=device),
        torch.as_tensor(np.concatenate([a.numbers for a in images]), device=device),
        torch.as_tensor(np.concatenate([get_magmoms(a) for a in images]), dtype=dtype, device=device),
        torch.repeat_interleave(torch.arange(len(images)), torch.tensor([len(a) for a in images])).to(device),
        r_max,
    )

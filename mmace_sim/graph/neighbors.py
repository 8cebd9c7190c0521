"""Neighbour lists of a batch of structures, sorted by the centre of each pair."""

from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from matscipy.neighbours import neighbour_list
from torch import Tensor

from mmace_sim.graph.cell_list import cell_list

BACKENDS: tuple[str, ...] = ("matscipy", "torch")
"""One call for each structure on the CPU; all structures in one call on any device (`mmace_sim.graph.cell_list`)."""

Pairs = tuple[Int[Tensor, "2 n_edges"], Float[Tensor, "n_edges 3"]]


def neighbor_list(
    positions: Float[Tensor, "n_atoms 3"],
    cell: Float[Tensor, "n_systems 3 3"],
    pbc: Bool[Tensor, "n_systems 3"],
    system_idx: Int[Tensor, " n_atoms"],
    r_max: float,
    *,
    backend: str | None = None,
) -> Pairs:
    """All ordered pairs closer than `r_max`, periodic images included.

    Args:
        positions: Cartesian positions, in Å; they need not lie in the cell.
        cell: Cell vectors as rows, in Å; those of open directions may be zero.
        pbc: Periodic directions of each structure.
        system_idx: Structure of each atom, ascending.
        r_max: Cutoff radius, in Å.
        backend: One of `BACKENDS`; by default matscipy on the CPU, torch on a GPU.

    Returns:
        The pairs (sender, receiver), sorted by receiver, and the shift of the sender in cell vectors.
    """
    positions, cell = positions.detach(), cell.detach()
    if (backend or default_backend(positions)) == "matscipy":
        counts = np.array(_counts(system_idx, len(cell)))
        arrays = positions.cpu().numpy(), cell.cpu().numpy(), pbc.cpu().numpy()
        edges, shifts, _, _ = pairs_on_host(*arrays, counts, r_max)
        device = positions.device
        return (
            torch.as_tensor(edges, device=device),
            torch.as_tensor(shifts, dtype=positions.dtype, device=device),
        )
    if not bool(pbc.all()):
        positions, cell = _closed_batch(positions, cell, pbc, system_idx, r_max)
    pairs, moved = cell_list(positions, cell, pbc, system_idx, r_max)
    return pairs, moved.to(positions.dtype)


def near_pairs(quantities: str, atoms: Atoms, cutoff: float) -> tuple[np.ndarray, ...]:
    """Pairs of atoms of one structure as plain arrays, periodic images included, sorted by the first atom.

    Args:
        quantities: Letters of `matscipy.neighbours.neighbour_list`, such as "ijd".
        atoms: Structure; a molecule needs no cell.
        cutoff: Largest distance, in Å.
    """
    pbc = np.asarray(atoms.pbc)
    positions, cell = _closed(atoms.positions, atoms.cell.array, pbc, cutoff)
    return neighbour_list(quantities, positions=positions, cell=cell, pbc=pbc, cutoff=cutoff)


def default_backend(positions: Tensor) -> str:
    """The one of `BACKENDS` that is fastest where positions are.

    Args:
        positions: On the device of the search.
    """
    return "matscipy" if positions.device.type == "cpu" else "torch"


def _closed_batch(
    positions: Tensor, cell: Tensor, pbc: Tensor, system_idx: Tensor, r_max: float
) -> tuple[Tensor, Tensor]:
    """The structures with cells that are closed in open directions too; made on the CPU."""
    where: dict[str, Any] = {"dtype": positions.dtype, "device": positions.device}
    counts = _counts(system_idx, len(cell))
    atoms = np.split(positions.cpu().numpy(), np.cumsum(counts)[:-1])
    boxes = [_closed(*one, r_max) for one in zip(atoms, cell.cpu().numpy(), pbc.cpu().numpy(), strict=True)]
    return (
        torch.as_tensor(np.concatenate([box[0] for box in boxes]), **where),
        torch.as_tensor(np.stack([box[1] for box in boxes]), **where),
    )


def _closed(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, r_max: float
) -> tuple[np.ndarray, np.ndarray]:
    """One structure with orthogonal vectors in open directions, which enclose all atoms.

    Gaps wider than the cutoff along these directions are made narrower: no pair reaches across either, and lists that
    sort atoms into boxes need no box for empty space.
    """
    if pbc.all():
        return positions, cell
    periodic = cell[pbc].astype(float)
    basis = np.linalg.svd(periodic)[2][len(periodic) :] if len(periodic) else np.eye(3)
    along = positions.astype(float) @ basis.T
    squeezed = _squeezed(along, r_max + 1.0)
    if squeezed is not along:
        positions = positions + (squeezed - along) @ basis
    cell = cell.astype(float)
    cell[~pbc] = basis * (np.ptp(squeezed, axis=0).max() + 1.0)
    if np.linalg.det(cell) < 0:
        cell[np.flatnonzero(~pbc)[0]] *= -1
    return positions, cell


def _squeezed(values: Float[np.ndarray, "n_atoms n_axes"], widest: float) -> np.ndarray:
    """Coordinates without gaps above `widest`; the same array if there are none."""
    order = np.argsort(values, axis=0)
    gaps = np.diff(np.take_along_axis(values, order, axis=0), axis=0)
    if not (gaps > widest).any():
        return values
    shifts = np.zeros_like(values)
    shifts[1:] = np.cumsum(np.maximum(gaps - widest, 0.0), axis=0)
    squeezed = np.empty_like(values)
    np.put_along_axis(squeezed, order, np.take_along_axis(values, order, axis=0) - shifts, axis=0)
    return squeezed


def pairs_on_host(
    positions: Float[np.ndarray, "n_atoms 3"],
    cell: Float[np.ndarray, "n_systems 3 3"],
    pbc: Bool[np.ndarray, "n_systems 3"],
    counts: Int[np.ndarray, " n_systems"],
    r_max: float,
) -> tuple[Int[np.ndarray, "2 n_edges"], Float[np.ndarray, "n_edges 3"], Int[np.ndarray, " n_atoms"], float]:
    """Lists of matscipy, one for each structure.

    Args:
        positions: Cartesian positions, in Å.
        cell: Cell vectors as rows, in Å.
        pbc: Periodic directions.
        counts: Atoms of each structure.
        r_max: Cutoff radius, in Å.

    Returns:
        Pairs and shifts as `neighbor_list` gives them, the number of pairs of each centre, and the shortest distance in
        Å (infinite if there are no pairs).
    """
    senders, receivers, shifts, shortest = [], [], [], np.inf
    start = 0
    for k, n in enumerate(counts.tolist()):
        r, c = positions[start : start + n].astype(float), cell[k].astype(float)
        if not pbc[k].all():
            r, c = _closed(r, c, pbc[k], r_max)
        i, j, s, d = neighbour_list("ijSd", positions=r, cell=c, pbc=pbc[k], cutoff=r_max)
        receivers.append(i + start)
        senders.append(j + start)
        shifts.append(s)
        shortest = min(shortest, d.min(initial=np.inf))
        start += n
    receiver = np.concatenate(receivers).astype(np.int64)
    edges = np.stack([np.concatenate(senders).astype(np.int64), receiver])
    pairs = np.bincount(receiver, minlength=len(positions))
    return edges, np.concatenate(shifts).astype(float), pairs, float(shortest)


def _counts(system_idx: Tensor, n_systems: int) -> list[int]:
    return torch.bincount(system_idx, minlength=n_systems).tolist()

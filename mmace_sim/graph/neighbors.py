"""Neighbour lists of a batch of structures, sorted by the centre of each pair."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matscipy.neighbours import neighbour_list
from torch import Tensor


def neighbor_list(
    positions: Float[Tensor, "n_atoms 3"],
    cell: Float[Tensor, "n_systems 3 3"],
    pbc: Bool[Tensor, "n_systems 3"],
    system_idx: Int[Tensor, " n_atoms"],
    r_max: float,
) -> tuple[Int[Tensor, "2 n_edges"], Float[Tensor, "n_edges 3"]]:
    """All ordered pairs closer than `r_max`, periodic images included.

    matscipy on the CPU (one call per structure), TorchSim's batched list on a GPU.

    Args:
        positions: Cartesian positions, in Å.
        cell: Cell vectors as rows, in Å.
        pbc: Periodic directions of each structure.
        system_idx: Structure of each atom, ascending.
        r_max: Cutoff radius, in Å.

    Returns:
        The pairs (sender, receiver), sorted by receiver, and the shift of the sender in cell vectors.
    """
    if positions.device.type == "cuda":
        return _neighbor_list_torchsim(positions, cell, pbc, system_idx, r_max)
    counts = torch.bincount(system_idx, minlength=cell.shape[0]).tolist()
    r, c, p = positions.detach().numpy(), cell.detach().numpy(), pbc.numpy()
    senders, receivers, shifts = [], [], []
    start = 0
    for k, n in enumerate(counts):
        i, j, s = _pairs(r[start : start + n], c[k], p[k], r_max)
        receivers.append(i + start)
        senders.append(j + start)
        shifts.append(s)
        start += n
    edges = np.stack([np.concatenate(senders), np.concatenate(receivers)])
    return (
        torch.from_numpy(edges.astype(np.int64)),
        torch.from_numpy(np.concatenate(shifts)).to(positions.dtype),
    )


def _pairs(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, r_max: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of one structure; directions without periodicity get a box around the atoms."""
    cell = np.array(cell, dtype=float)
    positions = np.array(positions, dtype=float)
    if not pbc.all():
        cell = _closed_cell(positions, cell, pbc)
    return neighbour_list("ijS", positions=positions, cell=cell, pbc=pbc, cutoff=r_max)


def _closed_cell(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Replace vectors of open directions by orthogonal ones that enclose all atoms."""
    periodic = cell[pbc]
    basis = np.linalg.svd(periodic)[2] if len(periodic) else np.eye(3)
    extent = np.ptp(positions, axis=0).max() + 1.0
    cell = cell.copy()
    cell[~pbc] = basis[len(periodic) :] * extent
    if np.linalg.det(cell) < 0:
        cell[np.flatnonzero(~pbc)[0]] *= -1
    return cell


def _neighbor_list_torchsim(
    positions: Tensor, cell: Tensor, pbc: Tensor, system_idx: Tensor, r_max: float
) -> tuple[Tensor, Tensor]:
    from torch_sim.neighbors import torchsim_nl  # heavy, and only needed on a GPU

    mapping, _, shifts = torchsim_nl(positions, cell.mT.contiguous(), pbc, r_max, system_idx)
    receiver, sender = mapping
    order = torch.argsort(receiver, stable=True)
    return torch.stack([sender[order], receiver[order]]).long(), shifts[order].to(positions.dtype)

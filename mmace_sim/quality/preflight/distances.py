"""Neighbours of a structure as plain arrays."""

import numpy as np
import torch
from ase import Atoms

from mmace_sim.graph.neighbors import neighbor_list


def neighbors(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All ordered pairs of atoms closer than the cutoff, periodic images included.

    Args:
        atoms: Structure.
        cutoff: Largest distance, in Å.

    Returns:
        First atom, second atom and distance (in Å) of each pair, sorted by the first.
    """
    edges, shifts = neighbor_list(
        torch.tensor(atoms.positions),
        torch.tensor(atoms.cell.array[None]),
        torch.tensor(atoms.pbc[None]),
        torch.zeros(len(atoms), dtype=torch.long),
        cutoff,
    )
    j, i = edges.numpy()
    vectors = atoms.positions[j] + shifts.numpy() @ atoms.cell.array - atoms.positions[i]
    return i, j, np.linalg.norm(vectors, axis=1)

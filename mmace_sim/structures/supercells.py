"""How large a supercell is."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mmace_sim.errors import UnsupportedOptionError


def parse_supercell(numbers: Sequence[int]) -> Int[np.ndarray, "3 3"]:
    """A supercell matrix from one, three or nine integers.

    Args:
        numbers: One multiple of all cell vectors, one for each, or a matrix row by row as in phonopy's ``DIM``.

    Raises:
        UnsupportedOptionError: If there are not one, three or nine integers, or the volume is not positive.
    """
    values = np.asarray(numbers)
    if values.size not in (1, 3, 9) or not np.array_equal(values, values.astype(int)):
        raise UnsupportedOptionError(
            f"supercell = {list(numbers)}, expected 1 or 3 integers, or 9 that make a matrix row by row."
        )
    values = np.broadcast_to(values.astype(int), 3) if values.size < 9 else values.astype(int).reshape(3, 3)
    matrix = np.diag(values) if values.ndim == 1 else values
    if round(float(np.linalg.det(matrix))) < 1 or (values.ndim == 1 and (values < 1).any()):
        raise UnsupportedOptionError(f"supercell = {list(numbers)}: its volume is not positive.")
    return matrix


def choose_supercell(cell: Float[np.ndarray, "3 3"], min_length: float) -> Int[np.ndarray, "3 3"]:
    """The smallest multiples of the cell vectors in which atoms are far enough from their own images.

    Args:
        cell: Cell vectors as rows, in Å.
        min_length: Smallest distance of an atom to its images, in Å.

    Returns:
        Diagonal supercell matrix; vectors of equal length have equal multiples.
    """
    from ase.geometry import minkowski_reduce

    lengths = np.linalg.norm(cell, axis=1)
    target = min_length
    while True:
        multiples = np.ceil(target / lengths - 1e-6).astype(int).clip(min=1)
        reduced, _ = minkowski_reduce(multiples[:, None] * cell)
        if np.linalg.norm(reduced, axis=1).min() >= min_length - 1e-6:
            return np.diag(multiples)
        target *= 1.05

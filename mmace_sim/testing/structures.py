"""Random magnetic structures."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.geometry import get_distances
from jaxtyping import Float

from mmace_sim.graph.atoms import set_magmoms

_MAX_TRIES = 200


def random_vectors(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 3"]:
    """Draw unit vectors that point in all directions alike.

    Args:
        rng: Source of randomness.
        n: Number of vectors.

    Returns:
        The vectors.
    """
    vectors = rng.normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_rotation(rng: np.random.Generator, *, improper: bool = False) -> Float[np.ndarray, "3 3"]:
    """Draw an orthogonal matrix from the Haar measure.

    Args:
        rng: Source of randomness.
        improper: Whether the determinant is −1 instead of +1.

    Returns:
        The matrix; it acts on column vectors.
    """
    matrix, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(upper))
    sign = -1.0 if improper else 1.0
    return matrix * (sign * np.sign(np.linalg.det(matrix)))


def random_structure(
    rng: np.random.Generator,
    *,
    elements: Sequence[int] = (26,),
    n_atoms: int = 3,
    max_moment: float = 3.0,
    volume_per_atom: float = 13.0,
    min_distance: float = 1.9,
    pbc: bool = True,
) -> Atoms:
    """Draw a structure in a skewed cell with non-collinear moments.

    Args:
        rng: Source of randomness.
        elements: Atomic numbers to draw from.
        n_atoms: Number of atoms.
        max_moment: Largest length of a moment, in μB; lengths are uniform below.
        volume_per_atom: In Å³.
        min_distance: Smallest distance of two atoms, in Å; lowered step by step where the atoms do not fit.
        pbc: Whether the structure is periodic.

    Returns:
        Structure with moments.
    """
    shape = np.eye(3) + 0.12 * rng.normal(size=(3, 3))
    cell = shape * (n_atoms * volume_per_atom / abs(np.linalg.det(shape))) ** (1 / 3)
    positions = np.zeros((0, 3))
    while len(positions) < n_atoms:
        for _ in range(_MAX_TRIES):
            trial = rng.uniform(size=(1, 3)) @ cell
            if _clearance(trial, positions, cell, pbc=pbc) >= min_distance:
                positions = np.concatenate([positions, trial])
                break
        else:
            min_distance *= 0.95
    atoms = Atoms(numbers=rng.choice(list(elements), size=n_atoms), positions=positions, cell=cell, pbc=pbc)
    set_magmoms(atoms, random_vectors(rng, n_atoms) * rng.uniform(0.0, max_moment, size=(n_atoms, 1)))
    return atoms


def _clearance(
    trial: Float[np.ndarray, "1 3"],
    positions: Float[np.ndarray, "n 3"],
    cell: Float[np.ndarray, "3 3"],
    *,
    pbc: bool,
) -> float:
    if len(positions) == 0:
        return np.inf
    return float(get_distances(trial, positions, cell=cell, pbc=pbc)[1].min())

"""Magnetic structures to test with: random ones, and simple crystals of given elements."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import get_distances
from jaxtyping import Float

from mmace_sim.graph.atoms import set_magmoms

_MAX_TRIES = 200


def random_vectors(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 3"]:
    """Draw unit vectors that point in all directions alike.

    Args:
        rng: Source of randomness.
        n: Number of vectors.
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


def standard_structures(
    elements: Sequence[int], max_moment: Callable[[int], float], *, seed: int = 0
) -> dict[str, Atoms]:
    """Make a handful of small structures with non-collinear moments, for a quick look at a potential.

    Bcc, fcc and hcp crystals, a strained and rattled bcc crystal, a skewed random cell and a dimer. The elements take
    turns from structure to structure; neighbours are as far apart as covalent radii suggest.

    Args:
        elements: Atomic numbers, those that matter most first: 17 places are filled.
        max_moment: Largest moment of an element, in μB; lengths are 0.3 to 1 times as long.
        seed: Seed of moments, strain and displacements.

    Returns:
        Structures by name.
    """
    rng, numbers = np.random.default_rng(seed), cycle(elements)
    bcc = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
    fcc = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    hcp = [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    hexagonal = np.array([[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, (8 / 3) ** 0.5]])
    structures: dict[str, Atoms] = {
        "bcc": _crystal(numbers, 2 / 3**0.5 * np.eye(3), bcc),
        "fcc": _crystal(numbers, 2**0.5 * np.eye(3), fcc),
        "hcp": _crystal(numbers, hexagonal, hcp),
        "rattled": _crystal(numbers, 2 / 3**0.5 * np.eye(3), bcc).repeat((2, 1, 1)),
    }
    rattled = structures["rattled"]
    rattled.numbers = list(islice(numbers, len(rattled)))
    rattled.set_cell(rattled.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
    rattled.positions += 0.08 * rng.normal(size=(len(rattled), 3))
    drawn = list(islice(numbers, 3))
    distance = neighbor_distance(drawn)
    structures["random"] = random_structure(
        rng, elements=drawn, n_atoms=3, volume_per_atom=0.77 * distance**3, min_distance=0.75 * distance
    )
    pair = list(islice(numbers, 2))
    structures["dimer"] = Atoms(
        numbers=pair, positions=[[0, 0, 0], 0.9 * neighbor_distance(pair) * random_vectors(rng, 1)[0]]
    )
    for atoms in structures.values():
        longest = np.array([max_moment(z) for z in atoms.numbers.tolist()])
        lengths = longest * rng.uniform(0.3, 1.0, size=len(atoms))
        set_magmoms(atoms, random_vectors(rng, len(atoms)) * lengths[:, None])
    return structures


def _crystal(numbers: Iterator[int], cell: np.ndarray, sites: list[list[float]]) -> Atoms:
    """A crystal whose cell is given in units of the distance between neighbours."""
    chosen = list(islice(numbers, len(sites)))
    return Atoms(numbers=chosen, scaled_positions=sites, cell=neighbor_distance(chosen) * cell, pbc=True)


def neighbor_distance(numbers: Sequence[int]) -> float:
    """Guess the distance between neighbours in a crystal, in Å: covalent radii are some percent too large for it.

    Args:
        numbers: Atomic numbers, of which the mean is taken.
    """
    return 1.9 * float(np.mean(covalent_radii[list(numbers)]))


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

"""Superlattices of a crystal and how its symmetry permutes magnetic sites: integers only, once spglib has spoken.

The lattice of the primitive cell is Z³ (rows of integers, multiplied by the cell vectors from the right). A
superlattice is given by its Hermite normal form, a lower triangular matrix whose rows generate it. A site of a
supercell with n cells is numbered k n + c: magnetic site k of the primitive cell, cell c.
"""

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from jaxtyping import Bool, Float, Int

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.structures.parent import MagneticParent


def hermite_normal_forms(n_cells: int) -> Iterator[Int[np.ndarray, "3 3"]]:
    """Every superlattice of Z³ with a given number of cells, once.

    Args:
        n_cells: Determinant.

    Yields:
        Lower triangular matrices; entries below the diagonal are smaller than the diagonal one of their column.

    References:
        G. L. W. Hart and R. W. Forcade, Phys. Rev. B 77, 224115 (2008), doi:10.1103/PhysRevB.77.224115.
    """
    for a in (d for d in range(1, n_cells + 1) if n_cells % d == 0):
        for b in (d for d in range(1, n_cells // a + 1) if (n_cells // a) % d == 0):
            for d, e, f in itertools.product(range(a), range(a), range(b)):
                yield np.array([[a, 0, 0], [d, b, 0], [e, f, n_cells // (a * b)]])


def reduce_points(
    points: Int[np.ndarray, "*batch 3"], matrix: Int[np.ndarray, "3 3"]
) -> Int[np.ndarray, "*batch 3"]:
    """Move points of Z³ into the first supercell.

    Args:
        points: Integer coordinates.
        matrix: Hermite normal form.

    Returns:
        Coordinates between 0 and the diagonal of the matrix.
    """
    reduced = np.array(points)
    for axis in (2, 1, 0):
        reduced -= (reduced[..., axis] // matrix[axis, axis])[..., None] * matrix[axis]
    return reduced


def cell_numbers(
    points: Int[np.ndarray, "*batch 3"], matrix: Int[np.ndarray, "3 3"]
) -> Int[np.ndarray, "*batch"]:
    """Number of the cell of a supercell that each point of Z³ falls into.

    Args:
        points: Integer coordinates.
        matrix: Hermite normal form.

    Returns:
        Numbers from 0 to n_cells − 1, in the order of `cell_points`.
    """
    reduced = reduce_points(points, matrix)
    return (reduced[..., 0] * matrix[1, 1] + reduced[..., 1]) * matrix[2, 2] + reduced[..., 2]


def cell_points(matrix: Int[np.ndarray, "3 3"]) -> Int[np.ndarray, "n_cells 3"]:
    """Origins of the cells of a supercell.

    Args:
        matrix: Hermite normal form.
    """
    return np.array(list(itertools.product(*(range(size) for size in np.diag(matrix)))))


def superlattice_waves(matrix: Int[np.ndarray, "3 3"]) -> Float[np.ndarray, "n_cells 3"]:
    """Wave vectors that fit into a supercell.

    Args:
        matrix: Hermite normal form.

    Returns:
        Components from 0 to 1 along the reciprocal vectors of the primitive cell (phase 2π k·n), zero first.
    """
    size = int(np.diag(matrix).prod())
    adjugate = np.rint(size * np.linalg.inv(matrix)).astype(int)
    points = np.array(list(itertools.product(range(size), repeat=3)))
    return np.unique(points @ adjugate.T % size, axis=0) / size


def conventional_wave(parent: MagneticParent, wave: Float[np.ndarray, " 3"]) -> tuple[Fraction, ...]:
    """A wave vector as people write it: one of its star, short, in units of the conventional cell.

    Args:
        parent: The crystal.
        wave: Components along the reciprocal vectors of the primitive cell.

    Returns:
        Components along the reciprocal vectors of the conventional cell, such as (0, 0, 1/2).
    """
    to_conventional = (parent.conventional @ np.linalg.inv(parent.cell)).T
    shifts = np.array(list(itertools.product((-2, -1, 0, 1, 2), repeat=3))) * parent.atoms.pbc
    star = wave @ np.unique(parent.rotations, axis=0)
    images = (star[:, None] + shifts[None]).reshape(-1, 3)
    images = np.concatenate([images, -images])
    reciprocal = np.linalg.inv(parent.cell).T
    lengths = np.linalg.norm(images @ reciprocal, axis=1)
    short = np.round(images[lengths < lengths.min() + 1e-6] @ to_conventional, 6) + 0.0
    best = min(short.tolist(), key=lambda k: ([abs(x) for x in k], [-x for x in k]))
    return tuple(Fraction(x).limit_denominator(48) for x in best)


def distinct_superlattices(parent: MagneticParent, n_cells: int) -> list[Int[np.ndarray, "3 3"]]:
    """Superlattices of a crystal that no rotation of the crystal maps onto each other.

    Args:
        parent: The crystal.
        n_cells: Number of primitive cells.

    Returns:
        One Hermite normal form of each kind; only those that leave open directions alone.
    """
    kept: list[np.ndarray] = []
    turns = np.unique(parent.rotations, axis=0).transpose(0, 2, 1)
    is_open = ~parent.atoms.pbc
    for matrix in hermite_normal_forms(n_cells):
        if (matrix - np.eye(3, dtype=int))[is_open].any():
            continue
        turned = matrix @ turns
        if not any((reduce_points(turned, known) == 0).all(axis=(1, 2)).any() for known in kept):
            kept.append(matrix)
    return kept


def keeps_superlattice(
    rotations: Int[np.ndarray, "n 3 3"], matrix: Int[np.ndarray, "3 3"]
) -> Bool[np.ndarray, " n"]:
    """Which rotations map a superlattice onto itself.

    Args:
        rotations: Rotations in fractional coordinates.
        matrix: Hermite normal form.
    """
    return (reduce_points(matrix @ rotations.transpose(0, 2, 1), matrix) == 0).all(axis=(1, 2))


def site_permutations(
    parent: MagneticParent, matrix: Int[np.ndarray, "3 3"], operations: Int[np.ndarray, " n_ops"]
) -> Int[np.ndarray, "n_ops n_cells n_sites"]:
    """Where the symmetry of the crystal moves the magnetic sites of a supercell.

    Args:
        parent: The crystal.
        matrix: Hermite normal form.
        operations: Numbers of operations that keep the superlattice.

    Returns:
        New number of each site, for each operation followed by each translation of the crystal, the identity first.
    """
    cells = cell_points(matrix)
    slot = np.full(len(parent.atoms), -1)
    slot[parent.sites] = np.arange(len(parent.sites))
    images = slot[parent.images[operations][:, parent.sites]]
    moved = np.einsum("oij,cj->oci", parent.rotations[operations], cells)[:, None]
    moved = moved + parent.offsets[operations][:, parent.sites][:, :, None]
    moved = moved[:, None] + cells[None, :, None, None]  # operation, translation, site, cell, axis
    numbers = images[:, None, :, None] * len(cells) + cell_numbers(moved, matrix)
    return numbers.reshape(len(operations), len(cells), -1)


def identity_operation(parent: MagneticParent) -> int:
    """Number of the identity among the operations of a crystal."""
    plain = (parent.rotations == np.eye(3, dtype=int)).all(axis=(1, 2))
    still = (parent.images == np.arange(len(parent.atoms))).all(axis=1) & ~parent.offsets.any(axis=(1, 2))
    return int(np.flatnonzero(plain & still)[0])


def build_supercell(
    parent: MagneticParent, matrix: Int[np.ndarray, "3 3"], moments: Float[np.ndarray, "n_atoms n_cells 3"]
) -> Atoms:
    """A supercell with moments, its cell vectors as short as they can be.

    Args:
        parent: The crystal.
        matrix: Hermite normal form.
        moments: Moment of each atom of the primitive cell in each cell, in μB.

    Returns:
        The structure; for a single cell, the primitive cell itself.
    """
    cells = cell_points(matrix)
    if len(cells) == 1:
        supercell = parent.atoms.copy()
    else:
        vectors, _ = minkowski_reduce(matrix @ parent.cell, pbc=parent.atoms.pbc)
        if np.linalg.det(vectors) < 0:
            vectors[np.argmax(parent.atoms.pbc)] *= -1
        positions = parent.atoms.positions[:, None] + (cells @ parent.cell)[None]
        supercell = Atoms(
            numbers=np.repeat(parent.atoms.numbers, len(cells)),
            positions=positions.reshape(-1, 3),
            cell=vectors,
            pbc=parent.atoms.pbc,
        )
        supercell.wrap(eps=1e-6)
    set_magmoms(supercell, moments.reshape(-1, 3))
    return supercell

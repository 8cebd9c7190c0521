"""Superlattices of a crystal and how its symmetry permutes magnetic sites: integers only, once spglib has spoken.

The lattice of the primitive cell is Z³ (rows of integers, multiplied by the cell vectors from the right). A
superlattice is given by its Hermite normal form, a lower triangular matrix whose rows generate it. A site of a
supercell with n cells is numbered k n + c: magnetic site k of the primitive cell, cell c.
"""

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell, minkowski_reduce
from jaxtyping import Bool, Float, Int

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import INITIAL_MAGMOMS, MAGMOM_ARRAYS, get_magmoms, set_magmoms
from mmace_sim.workflows.initial_moments import STRONG_MOMENT

_VACUUM = 20.0  # Å, so that spglib sees no neighbour where a structure is not periodic


@dataclass(frozen=True)
class MagneticParent:
    """The primitive cell of a structure, without its magnetic order, and the symmetry of the structure.

    Attributes:
        atoms: Primitive cell without moments.
        lengths: Length of the moment of each atom, in μB.
        sites: Atoms that carry the order.
        orbits: Number of the set of equivalent atoms that each atom belongs to.
        rotations: Operation {R|t}: x → R x + t in fractional coordinates.
        images: Atom that each operation moves each atom to.
        offsets: Cell that each operation moves each atom of the first cell to.
        conventional: Vectors of the conventional cell as rows, in Å.
        symprec: Tolerance of positions, in Å.
    """

    atoms: Atoms
    lengths: Float[np.ndarray, " n_atoms"]
    sites: Int[np.ndarray, " n_sites"]
    orbits: Int[np.ndarray, " n_atoms"]
    rotations: Int[np.ndarray, "n_ops 3 3"]
    images: Int[np.ndarray, "n_ops n_atoms"]
    offsets: Int[np.ndarray, "n_ops n_atoms 3"]
    conventional: Float[np.ndarray, "3 3"]
    symprec: float

    @property
    def cell(self) -> Float[np.ndarray, "3 3"]:
        """Cell vectors as rows, made complete where the structure is not periodic, in Å."""
        return complete_cell(self.atoms.cell)


def magnetic_parent(atoms: Atoms, *, symprec: float = 0.01) -> MagneticParent:
    """Reduce a structure to its primitive cell and find its symmetry, both without the magnetic order.

    Atoms whose moments are 1 μB or longer carry the order; all that have a moment, if none is as long. Equivalent atoms
    get the length of the longest of them.

    Args:
        atoms: Structure with moments, of which the lengths count.
        symprec: Tolerance of positions, in Å.

    Returns:
        The primitive cell; the cell itself if the structure is not periodic in three directions.

    Raises:
        StructureError: If spglib finds no symmetry.
        MissingMomentsError: If the structure has no moments.
    """
    lengths = np.linalg.norm(get_magmoms(atoms), axis=1)
    plain = atoms.copy()
    plain.calc = None
    for name in (INITIAL_MAGMOMS, *MAGMOM_ARRAYS):
        plain.arrays.pop(name, None)
    conventional = complete_cell(plain.cell)
    if plain.pbc.all():
        plain, lengths = _primitive(plain, lengths, symprec)
        conventional = np.asarray(_ask("standardize_cell", plain, symprec, no_idealize=True)[0])
    padded = _padded(plain)
    rotations, translations, orbits = _symmetry(padded, symprec)
    lengths = np.array([lengths[orbits == orbit].max() for orbit in orbits])
    threshold = STRONG_MOMENT if (lengths >= STRONG_MOMENT).any() else 1e-9
    images, offsets = _images(padded, rotations, translations, symprec)
    return MagneticParent(
        atoms=plain,
        lengths=lengths,
        sites=np.flatnonzero(lengths >= threshold),
        orbits=orbits,
        rotations=rotations,
        images=images,
        offsets=offsets,
        conventional=conventional,
        symprec=symprec,
    )


def _ask(function: str, atoms: Atoms, symprec: float, **options: Any) -> Any:
    """Call spglib, which returns None or raises where it finds nothing."""
    import spglib

    cell = (complete_cell(atoms.cell), atoms.get_scaled_positions(), atoms.numbers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # spglib about how it will report errors
            found = getattr(spglib, function)(cell, symprec=symprec, **options)
    except Exception as error:
        raise StructureError(f"spglib finds no symmetry ({error}); choose another --symprec.") from error
    if found is None:
        raise StructureError("spglib finds no symmetry; choose another --symprec.")
    return found


def _primitive(
    atoms: Atoms, lengths: Float[np.ndarray, " n"], symprec: float
) -> tuple[Atoms, Float[np.ndarray, " n_primitive"]]:
    """The primitive cell in the orientation of the structure, and the longest moment of the atoms it stands for."""
    lattice, scaled, numbers = _ask("standardize_cell", atoms, symprec, to_primitive=True, no_idealize=True)
    if len(numbers) == len(atoms):
        return atoms, lengths
    primitive = Atoms(numbers=numbers, scaled_positions=scaled, cell=lattice, pbc=True)
    difference = (atoms.positions[None] - primitive.positions[:, None]) @ np.linalg.inv(lattice)
    distances = np.linalg.norm((difference - np.rint(difference)) @ lattice, axis=2)
    same = (distances < 10 * symprec) & (atoms.numbers[None] == primitive.numbers[:, None])
    return primitive, np.where(same, lengths[None], 0.0).max(axis=1)


def _padded(atoms: Atoms) -> Atoms:
    """The structure with vacuum where it is not periodic."""
    padded = atoms.copy()
    for axis in np.flatnonzero(~atoms.pbc):
        padded.center(vacuum=_VACUUM, axis=int(axis))
    return padded


def _symmetry(
    atoms: Atoms, symprec: float
) -> tuple[Int[np.ndarray, "n_ops 3 3"], Float[np.ndarray, "n_ops 3"], Int[np.ndarray, " n_atoms"]]:
    """Operations and equivalent atoms; directions without periodicity do not mix with others."""
    if not atoms.pbc.any():
        return np.eye(3, dtype=int)[None], np.zeros((1, 3)), np.arange(len(atoms))
    dataset = _ask("get_symmetry_dataset", atoms, symprec)
    rotations, translations = np.asarray(dataset.rotations), np.asarray(dataset.translations)
    is_open = ~atoms.pbc
    mixed = rotations[:, ~is_open][:, :, is_open].any(axis=(1, 2))
    mixed |= rotations[:, is_open][:, :, ~is_open].any(axis=(1, 2))
    return rotations[~mixed], translations[~mixed], np.asarray(dataset.equivalent_atoms)


def _images(
    atoms: Atoms, rotations: Int[np.ndarray, "n 3 3"], translations: Float[np.ndarray, "n 3"], symprec: float
) -> tuple[Int[np.ndarray, "n n_atoms"], Int[np.ndarray, "n n_atoms 3"]]:
    """Atom and cell that each operation moves each atom to."""
    cell = complete_cell(atoms.cell)
    scaled = atoms.positions @ np.linalg.inv(cell)
    images, offsets = [], []
    for rotation, translation in zip(rotations, translations, strict=True):
        difference = (scaled @ rotation.T + translation)[:, None] - scaled[None]
        whole = np.rint(difference)
        distances = np.linalg.norm((difference - whole) @ cell, axis=2)
        distances[atoms.numbers[:, None] != atoms.numbers[None]] = np.inf
        image = distances.argmin(axis=1)
        if distances.min(axis=1).max() > 10 * symprec:
            raise StructureError(
                "an operation of spglib maps no atom onto an atom; choose a smaller --symprec."
            )
        images.append(image)
        offsets.append(whole[np.arange(len(image)), image].astype(int) * atoms.pbc)
    return np.array(images), np.array(offsets)


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

    Returns:
        Integer coordinates.
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

    Returns:
        True where they do.
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
    """Number of the identity among the operations of a crystal.

    Args:
        parent: The crystal.
    """
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

"""The primitive cell of a structure and its symmetry, both without the magnetic order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from jaxtyping import Float, Int

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import INITIAL_MAGMOMS, MAGMOM_ARRAYS, get_magmoms
from mmace_sim.graph.spglib_call import call_spglib
from mmace_sim.structures.antiferromagnet import magnetic_sites

_PAIRS_AT_ONCE = 200_000  # of atoms, so that images of all operations of a large cell fit into memory
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
    images, offsets = operation_images(padded, rotations, translations, symprec)
    return MagneticParent(
        atoms=plain,
        lengths=lengths,
        sites=magnetic_sites(lengths),
        orbits=orbits,
        rotations=rotations,
        images=images,
        offsets=offsets,
        conventional=conventional,
        symprec=symprec,
    )


def _ask(function: str, atoms: Atoms, symprec: float, **options: Any) -> Any:
    """Call spglib, which returns None or raises where it finds nothing."""
    found = call_spglib(function, atoms, symprec=symprec, **options)
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


def operation_images(
    atoms: Atoms, rotations: Int[np.ndarray, "n 3 3"], translations: Float[np.ndarray, "n 3"], symprec: float
) -> tuple[Int[np.ndarray, "n n_atoms"], Int[np.ndarray, "n n_atoms 3"]]:
    """Atom and cell that each operation moves each atom to.

    Args:
        atoms: Structure.
        rotations: In fractional coordinates.
        translations: In fractional coordinates.
        symprec: Tolerance that the operations were found with, in Å.

    Returns:
        Numbers of atoms and integer coordinates of cells.

    Raises:
        StructureError: If an operation moves an atom to where none is.
    """
    cell = complete_cell(atoms.cell)
    scaled = atoms.positions @ np.linalg.inv(cell)
    n = len(atoms)
    images, offsets = np.zeros((len(rotations), n), dtype=int), np.zeros((len(rotations), n, 3), dtype=int)
    at_once = max(_PAIRS_AT_ONCE // n**2, 1)
    for first in range(0, len(rotations), at_once):
        some = slice(first, first + at_once)
        moved = scaled @ np.swapaxes(rotations[some], 1, 2) + translations[some, None]
        difference = moved[:, :, None] - scaled
        whole = np.rint(difference)
        distances = np.linalg.norm((difference - whole) @ cell, axis=3)
        distances[:, atoms.numbers[:, None] != atoms.numbers[None]] = np.inf
        if distances.min(axis=2).max() > 10 * symprec:
            raise StructureError(
                "an operation of spglib maps no atom onto an atom; choose a smaller --symprec."
            )
        images[some] = distances.argmin(axis=2)
        nearest = np.take_along_axis(whole, images[some][:, :, None, None], axis=2)[:, :, 0]
        offsets[some] = nearest.astype(int) * atoms.pbc
    return images, offsets


def axial_rotations(
    cell: Float[np.ndarray, "3 3"], rotations: Int[np.ndarray, "n 3 3"]
) -> Float[np.ndarray, "n 3 3"]:
    """What operations do to moments, which are axial vectors: the rotation, without the inversion if there is one.

    Args:
        cell: Cell vectors as rows.
        rotations: In fractional coordinates.

    Returns:
        Proper rotations of Cartesian vectors.
    """
    turns = cell.T @ rotations @ np.linalg.inv(cell.T)
    return turns * np.rint(np.linalg.det(turns))[:, None, None]


def rotation_axes(turns: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n_axes 3"]:
    """Axes of proper rotations, each once and pointing up, z first.

    Args:
        turns: Cartesian rotations.

    Returns:
        Unit vectors.
    """
    axes = [np.array([0.0, 0.0, 1.0])]
    for turn in turns:
        if np.trace(turn) > 3 - 1e-6:
            continue
        values, vectors = np.linalg.eig(turn)
        axis = np.real(vectors[:, np.argmin(np.abs(values - 1))])
        axis *= np.sign(axis[np.flatnonzero(np.abs(axis) > 1e-6)[-1]]) / np.linalg.norm(axis)
        if not any(abs(axis @ known) > 1 - 1e-6 for known in axes):
            axes.append(axis)
    return np.array(axes)

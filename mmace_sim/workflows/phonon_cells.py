"""Crystals, supercells and moments on their way to phonopy."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from jaxtyping import Float, Int

from mmace_sim.errors import StructureError, UnsupportedOptionError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.torchsim.state import initialize_state, state_to_phonopy


def make_phonopy(
    atoms: Atoms,
    *,
    supercell: Int[np.ndarray, "3 3"],
    displacement: float,
    symprec: float,
    spin_orbit: bool,
) -> tuple[Any, list[str]]:
    """A phonopy object of a magnetic crystal, displacements generated.

    phonopy reduces displacements by the symmetry of the crystal *with* its moments. Scalars are left alone by
    rotations and may change sign as a whole, which is the symmetry of collinear moments without spin–orbit coupling;
    vectors turn with the lattice. A collinear crystal therefore is given scalars unless the model has spin–orbit
    coupling.

    Args:
        atoms: Crystal with moments.
        supercell: Supercell matrix in phonopy's convention, relative to the cell of `atoms`.
        displacement: Length of the displacements, in Å.
        symprec: Tolerance of symmetry, in Å for positions and in μB for moments.
        spin_orbit: Whether directions of moments are tied to the lattice.

    Returns:
        The ``Phonopy`` object, and what it said about the cell.
    """
    from phonopy import Phonopy
    from phonopy.structure.cells import guess_primitive_matrix

    cell = state_to_phonopy(initialize_state(atoms))[0]
    if not spin_orbit:
        cell.magnetic_moments = collinear_or_vectors(get_magmoms(atoms), tolerance=symprec)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings(
            "ignore", ".*Type-IV magnetic space group"
        )  # the magnetic cell is what we want
        primitive = guess_primitive_matrix(cell, symprec=symprec)
        phonon = Phonopy(cell, supercell_matrix=supercell, primitive_matrix=primitive, symprec=symprec)
        phonon.generate_displacements(distance=displacement)
    return phonon, list(dict.fromkeys(" ".join(str(item.message).split()) for item in caught))


def collinear_or_vectors(magmoms: Float[np.ndarray, "n_atoms 3"], *, tolerance: float) -> np.ndarray:
    """Collinear moments as signed lengths along their axis, others as they are.

    Args:
        magmoms: Moments, in μB.
        tolerance: Largest component across the axis that does not count, in μB.

    Returns:
        Array of shape (n_atoms,) or (n_atoms, 3), in μB. The longest moment has its sign from the direction of its
        largest component.
    """
    longest = magmoms[np.argmax(np.linalg.norm(magmoms, axis=1))]
    length = np.linalg.norm(longest)
    if length < tolerance:
        return np.zeros(len(magmoms))
    axis = longest / length * np.sign(longest[np.argmax(np.abs(longest))])
    along = magmoms @ axis
    return along if np.abs(magmoms - along[:, None] * axis).max() < tolerance else magmoms


def parse_supercell(numbers: Sequence[int]) -> Int[np.ndarray, "3 3"]:
    """A supercell matrix from three or nine integers.

    Args:
        numbers: Multiples of the cell vectors, or a matrix row by row as in phonopy's ``DIM``.

    Returns:
        The matrix.

    Raises:
        UnsupportedOptionError: If there are not three or nine integers, or the volume is not positive.
    """
    values = np.asarray(numbers)
    if values.size not in (3, 9) or not np.array_equal(values, values.astype(int)):
        raise UnsupportedOptionError(
            f"supercell = {list(numbers)}, expected 3 integers, or 9 that make a matrix row by row."
        )
    matrix = np.diag(values.astype(int)) if values.size == 3 else values.astype(int).reshape(3, 3)
    if round(float(np.linalg.det(matrix))) < 1 or (values.size == 3 and (values < 1).any()):
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
    lengths = np.linalg.norm(cell, axis=1)
    target = min_length
    while True:
        multiples = np.ceil(target / lengths - 1e-6).astype(int).clip(min=1)
        reduced, _ = minkowski_reduce(multiples[:, None] * cell)
        if np.linalg.norm(reduced, axis=1).min() >= min_length - 1e-6:
            return np.diag(multiples)
        target *= 1.05


def supercells(phonon: Any) -> list[Any]:
    """The perfect supercell and those with displacements, moments included.

    Args:
        phonon: ``Phonopy`` or ``Phono3py`` object with displacements.

    Returns:
        phonopy structures, the perfect one first; pairs that phono3py's cutoff leaves out are missing.

    Raises:
        StructureError: If there are no displacements.
    """
    displaced = [] if phonon.dataset is None else phonon.supercells_with_displacements
    if not displaced:
        raise StructureError(
            "the phonopy object has no displacements. Call generate_displacements(distance=0.01) first."
        )
    return [phonon.supercell, *(cell for cell in displaced if cell is not None)]


def restoring_forces(phonon: Any, forces: Sequence[Float[np.ndarray, "n_atoms 3"]]) -> np.ndarray:
    """Forces of the displacements alone: those of the perfect supercell are subtracted.

    Args:
        phonon: ``Phonopy`` or ``Phono3py`` object with displacements.
        forces: Forces of `supercells`, in eV/Å.

    Returns:
        Array of shape (n_displacements, n_atoms, 3), in eV/Å; zero for pairs that phono3py's cutoff leaves out.
    """
    rest, *displaced = forces
    left = iter(displaced)
    return np.array(
        [
            np.zeros_like(rest) if cell is None else next(left) - rest
            for cell in phonon.supercells_with_displacements
        ]
    )

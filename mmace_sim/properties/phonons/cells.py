"""Crystals, supercells and moments on their way to phonopy."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int

from mmace_sim.errors import StructureError
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

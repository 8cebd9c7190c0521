"""Symmetry of elastic constants: which rotations hold, which constants are independent, which strains find them.

Strains, stresses and constants are vectors and matrices in Mandel's notation, the order xx, yy, zz, yz, xz, xy with
shears times √2: there, rotations are orthogonal and the constants' eigenvalues are those of the tensor.
"""

import itertools

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float, Int

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.cells import check_crystal
from mmace_sim.graph.spglib_call import call_spglib
from mmace_sim.structures.magnetic_order import magnetic_operations
from mmace_sim.structures.parent import operation_images

VOIGT: tuple[tuple[int, int], ...] = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Indices of the components in Voigt's order."""

MANDEL_WEIGHTS = np.array([1.0, 1.0, 1.0, 2**0.5, 2**0.5, 2**0.5])
"""What Mandel's notation multiplies the components by."""

_RANK_TOL = 1e-6

WELL_DETERMINED: float = 0.3
"""Smallest singular value of the map from constants to stresses that counts as determined. It is 1 for all six strains,
0.58 for xx and yz of a cubic crystal, and tiny but not zero for xx alone if the crystal is turned by a trifle."""


def to_mandel(tensors: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 6"]:
    """Symmetric tensors as vectors.

    Args:
        tensors: Strains or stresses.

    Returns:
        Their components in Mandel's notation.
    """
    return np.stack([tensors[..., i, j] for i, j in VOIGT], axis=-1) * MANDEL_WEIGHTS


def from_mandel(vectors: Float[np.ndarray, "*batch 6"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Vectors as symmetric tensors; the inverse of `to_mandel`.

    Args:
        vectors: Components in Mandel's notation.

    Returns:
        The tensors.
    """
    tensors = np.zeros((*vectors.shape[:-1], 3, 3))
    for k, (i, j) in enumerate(VOIGT):
        tensors[..., i, j] = tensors[..., j, i] = vectors[..., k] / MANDEL_WEIGHTS[k]
    return tensors


def elastic_rotations(
    atoms: Atoms, *, spin_orbit: bool, symprec: float = 0.01, magmom_tol: float = 0.02
) -> Float[np.ndarray, "n 3 3"]:
    """Rotations that leave the elastic constants of a magnetic crystal unchanged.

    With spin–orbit coupling these are the rotations of its magnetic space group, with or without time reversal, the
    moments being axial vectors. Without it, moments may turn on their own: every symmetry of the structure counts
    that maps the moments onto themselves up to one rotation or reflection of all of them, that is, that keeps their
    scalar products (a spin space group).

    Args:
        atoms: Crystal with moments.
        spin_orbit: Whether the model couples moments to the lattice.
        symprec: Tolerance of positions, in Å.
        magmom_tol: Tolerance of moments, in μB.

    Returns:
        Cartesian rotations, proper or not, the identity among them.

    Raises:
        StructureError: If the structure is no crystal, or its symmetry cannot be found.
    """
    check_crystal(atoms, "elastic constants need")
    magmoms = get_magmoms(atoms)
    if spin_orbit:
        magnetic = magnetic_operations(atoms, magmoms, symprec=symprec, magmom_tol=magmom_tol)
        rotations = None if magnetic is None else magnetic.rotations
    else:
        found = call_spglib("get_symmetry", atoms, symprec=symprec)
        rotations = None if found is None else found["rotations"]
    if rotations is None:
        raise StructureError("spglib finds no symmetry; switch symmetry off.")
    if not spin_orbit:
        images, _ = operation_images(atoms, rotations, found["translations"], symprec)
        rotations = rotations[_keep_scalar_products(magmoms, images, magmom_tol)]
    columns = atoms.cell.array.T
    left, _, right = np.linalg.svd(columns @ np.unique(rotations, axis=0) @ np.linalg.inv(columns))
    return left @ right  # exactly orthogonal, though the cell has its symmetry within a tolerance only


def _keep_scalar_products(
    magmoms: Float[np.ndarray, "n_atoms 3"], images: Int[np.ndarray, "n n_atoms"], magmom_tol: float
) -> Bool[np.ndarray, " n"]:
    products = magmoms @ magmoms.T
    tolerance = 2 * magmom_tol * max(float(np.linalg.norm(magmoms, axis=1).max()), magmom_tol)
    return np.array(
        [np.abs(products[np.ix_(image, image)] - products).max() <= tolerance for image in images]
    )


def independent_constants(rotations: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n_constants 6 6"]:
    """Orthonormal basis of the elastic constants that a group of rotations allows.

    Args:
        rotations: Cartesian rotations of a group.

    Returns:
        Matrices in Mandel's notation: 3 for a cubic crystal, 21 without symmetry.
    """
    units = from_mandel(np.eye(6))
    turned = np.einsum("nia,kab,njb->nkij", rotations, units, rotations)
    turns = to_mandel(turned).transpose(0, 2, 1)
    basis = []
    for a, b in itertools.combinations_with_replacement(range(6), 2):
        matrix = np.zeros((6, 6))
        matrix[a, b] = matrix[b, a] = 1.0 if a == b else 0.5**0.5
        basis.append(np.einsum("nia,ab,njb->ij", turns, matrix, turns).ravel() / len(turns))
    _, sizes, rows = np.linalg.svd(np.array(basis))
    return rows[: int((sizes > 0.5).sum())].reshape(-1, 6, 6)  # a projection: sizes are 1 or 0


def sufficient_strains(basis: Float[np.ndarray, "n_constants 6 6"]) -> list[int]:
    """The fewest of the six simple strains whose stresses determine all independent constants well.

    Args:
        basis: From `independent_constants`.

    Returns:
        Indices in Voigt's order, such as [0, 3] (xx and yz) for a cubic crystal.
    """
    for count in range(1, 7):
        choices = [(_weakest(basis, strains), strains) for strains in itertools.combinations(range(6), count)]
        weakest, strains = max(choices, key=lambda choice: (round(choice[0], 6), [-k for k in choice[1]]))
        if weakest > WELL_DETERMINED:
            return list(strains)
    raise AssertionError("six strains determine everything")


def _weakest(basis: Float[np.ndarray, "n_constants 6 6"], strains: tuple[int, ...]) -> float:
    """Smallest singular value of the map from constants to the stresses of some strains."""
    design = basis[:, :, list(strains)].reshape(len(basis), -1)
    return float(np.linalg.svd(design, compute_uv=False)[-1]) if design.shape[1] >= len(basis) else 0.0


def fit_constants(
    basis: Float[np.ndarray, "n_constants 6 6"],
    strains: Float[np.ndarray, "n 6"],
    stresses: Float[np.ndarray, "n 6"],
) -> tuple[Float[np.ndarray, "6 6"], float] | None:
    """Least squares of stress = C strain over the constants that symmetry allows.

    Args:
        basis: From `independent_constants`.
        strains: In Mandel's notation.
        stresses: In Mandel's notation, any unit.

    Returns:
        C in Mandel's notation and the root mean square of what is left of the stresses; None if the strains do not
        determine all constants.
    """
    if len(strains) == 0:
        return None
    design = np.einsum("kij,nj->nik", basis, strains).reshape(-1, len(basis))
    coefficients, _, rank, _ = np.linalg.lstsq(design, stresses.ravel(), rcond=_RANK_TOL)
    if rank < len(basis):
        return None
    left = design @ coefficients - stresses.ravel()
    return np.tensordot(coefficients, basis, axes=1), float(np.sqrt(np.mean(left**2)))

"""Elastic constants of one crystal and what follows from them: stability, moduli, anisotropy."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy.typing import ArrayLike

from mmace_sim.properties.elastic.symmetry import MANDEL_WEIGHTS

_SMALL_STRAIN = 1e-6 * np.array([[1.0, 4.0, 2.0], [4.0, 2.0, 5.0], [2.0, 5.0, 3.0]])


@dataclass
class ElasticConstants:
    """Elastic constants of one crystal.

    Attributes:
        c_gpa: C_ij in Voigt's notation, in the Cartesian axes of the structure.
        c_ieee_gpa: The same in the axes of the IEEE standard (the cubic axes, c along z, ...): C₁₁, C₁₂, C₄₄ of a cubic
            crystal are in their places.
        fit_error_gpa: Estimated uncertainty, in GPa: what symmetry leaves of the measured constants (C₁₂ against C₂₁),
            what atoms and moments that are not relaxed to the end do, and terms of the series that are not fitted.
    """

    c_gpa: Float[np.ndarray, "6 6"]
    c_ieee_gpa: Float[np.ndarray, "6 6"]
    fit_error_gpa: float

    @classmethod
    def from_voigt(
        cls, c_gpa: Float[np.ndarray, "6 6"], atoms: Atoms, fit_error_gpa: float
    ) -> "ElasticConstants":
        """Turn the constants into the standard axes.

        Args:
            c_gpa: C_ij in Voigt's notation, in GPa, in the Cartesian axes of the structure.
            atoms: The crystal, for its standard axes.
            fit_error_gpa: See the class.

        Returns:
            The constants.
        """
        from pymatgen.core import Lattice, Structure

        tensor = _tensor(c_gpa)
        structure = Structure(
            Lattice(atoms.cell.array), atoms.get_chemical_symbols(), atoms.get_scaled_positions()
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen about its own defaults
            rotation = _orthonormal(_to_standard_axes(tensor, structure))
            turned = np.asarray(tensor.rotate(rotation, tol=1e-6).voigt)
        return cls(np.asarray(c_gpa), turned, fit_error_gpa)

    @cached_property
    def tensor(self) -> Any:
        """Pymatgen's ``ElasticTensor``, in GPa, in the Cartesian axes of the structure."""
        return _tensor(self.c_gpa)

    @cached_property
    def tensor_ieee(self) -> Any:
        """Pymatgen's ``ElasticTensor``, in GPa, in the standard axes."""
        return _tensor(self.c_ieee_gpa)

    @property
    def eigenvalues_gpa(self) -> Float[np.ndarray, " 6"]:
        """Eigenvalues of the tensor, in ascending order; three times the bulk modulus is one of a cubic crystal."""
        return np.linalg.eigvalsh(self.c_gpa * np.outer(MANDEL_WEIGHTS, MANDEL_WEIGHTS))

    @property
    def stable(self) -> bool:
        """Whether the crystal is stable against every small strain (Born): all eigenvalues are positive."""
        return bool(self.eigenvalues_gpa[0] > 0)

    def moduli(self) -> dict[str, float | None]:
        """Moduli of a polycrystal by Voigt, Reuss and Hill, in GPa, Poisson's ratio and the universal anisotropy.

        Returns:
            By name. What needs the compliance is None for an unstable crystal.

        References:
            Ranganathan and Ostoja-Starzewski, 10.1103/PhysRevLett.101.055504, for the universal anisotropy.
        """
        voigt: dict[str, float | None] = {
            "bulk_voigt": float(self.tensor.k_voigt),
            "shear_voigt": float(self.tensor.g_voigt),
        }
        if not self.stable:
            names = (
                "bulk_reuss",
                "shear_reuss",
                "bulk",
                "shear",
                "young",
                "poisson_ratio",
                "universal_anisotropy",
            )
            return voigt | dict.fromkeys(names)
        bulk, shear = float(self.tensor.k_vrh), float(self.tensor.g_vrh)
        return voigt | {
            "bulk_reuss": float(self.tensor.k_reuss),
            "shear_reuss": float(self.tensor.g_reuss),
            "bulk": bulk,
            "shear": shear,
            "young": 9 * bulk * shear / (3 * bulk + shear),
            "poisson_ratio": (3 * bulk - 2 * shear) / (6 * bulk + 2 * shear),
            "universal_anisotropy": float(self.tensor.universal_anisotropy),
        }


def _to_standard_axes(tensor: Any, structure: Any) -> np.ndarray:
    """Rotation to the standard axes by pymatgen, which tells axes apart by lengths and angles that must differ.

    Where they are equal although symmetry does not ask for it (cubic cells with displaced atoms), a strain of the
    symmetry of the crystal, much too small to be seen, makes them different.
    """
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        return tensor.get_ieee_rotation(structure, refine_rotation=False)
    except (StopIteration, ValueError):
        operations = SpacegroupAnalyzer(structure).get_symmetry_operations(cartesian=True)
        turned = [x.rotation_matrix @ _SMALL_STRAIN @ x.rotation_matrix.T for x in operations]
        strained = structure.copy()
        strained.lattice = type(structure.lattice)(
            structure.lattice.matrix @ (np.eye(3) + np.mean(turned, axis=0))
        )
        return tensor.get_ieee_rotation(strained, refine_rotation=False)


def _tensor(c_gpa: Float[np.ndarray, "6 6"]) -> Any:
    from pymatgen.analysis.elasticity import ElasticTensor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen about its own defaults
        return ElasticTensor.from_voigt(c_gpa)


def _orthonormal(rotation: ArrayLike) -> Float[np.ndarray, "3 3"]:
    """The proper rotation nearest to axes that are orthogonal up to the tolerance of the symmetry search."""
    left, _, right = np.linalg.svd(np.asarray(rotation, dtype=float))
    nearest = left @ right
    return nearest * np.sign(np.linalg.det(nearest))

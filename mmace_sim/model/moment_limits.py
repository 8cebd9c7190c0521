"""Moments above which the energy of a model means nothing."""

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float, Int

TOLERANCE: float = 1e-6
"""Relative, for moments that were rounded on their way."""


def _limits(model: object) -> dict[int, float]:
    return getattr(model, "moment_limits", {})  # toys have none


def beyond_limits(
    model: object, numbers: Int[np.ndarray, " n_atoms"], magmoms: Float[np.ndarray, "n_atoms 3"]
) -> list[int]:
    """Indices of the atoms whose moments are above the model's limits, if it has any.

    Args:
        model: Energy model.
        numbers: Atomic numbers.
        magmoms: Moments, in μB.
    """
    limits = _limits(model)
    if not limits:
        return []
    largest = np.array([limits.get(z, np.inf) for z in numbers.tolist()])
    return np.flatnonzero(np.linalg.norm(magmoms, axis=1) > largest * (1.0 + TOLERANCE)).tolist()


def moment_beyond(
    model: object, numbers: Int[np.ndarray, " n_atoms"], magmoms: Float[np.ndarray, "n_atoms 3"]
) -> str:
    """What is wrong with moments above the limits of a model; empty if none are.

    Args:
        model: Energy model.
        numbers: Atomic numbers.
        magmoms: Moments, in μB.
    """
    atoms = beyond_limits(model, numbers, magmoms)
    if not atoms:
        return ""
    index, z, limits = atoms[0], int(numbers[atoms[0]]), _limits(model)
    length = float(np.linalg.norm(magmoms[index]))
    return (
        f"the moment of atom {index} ({chemical_symbols[z]}) is {length:.4g} μB, but the largest that this model was "
        f"made for is {limits[z]:.4g} μB, above which its energy means nothing. Start from smaller "
        "moments, or convert the model with --saturate."
    )

"""Moments that a model can describe: where starts may lie, and what is refused."""

import numpy as np
from ase import Atoms

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.model.moment_limits import moment_beyond

START_SHARE: float = 0.9
"""Starts that are not the user's own stay below this share of the largest moment of the data."""


def largest_moments(model: object) -> dict[int, float]:
    """Largest moment of each element in the data of a model, in μB, as far as it is known.

    Args:
        model: Energy model, or a host's model around one.
    """
    config = getattr(getattr(model, "model", model), "config", None)
    return dict(getattr(config, "max_moment", {}))


def hard_limits(model: object) -> dict[int, float]:
    """Largest moment of each element that a model has an energy for, in μB; empty for models that have one everywhere.

    Args:
        model: Energy model, or a host's model around one.
    """
    return getattr(getattr(model, "model", model), "moment_limits", {})


def shorten_moments(atoms: Atoms, largest: dict[int, float]) -> Atoms:
    """Bring the moments of a start that is not the user's own below `START_SHARE` of the largest of each element.

    Args:
        atoms: Structure with moments, which are changed.
        largest: Largest moment of each element, in μB.

    Returns:
        The structure.
    """
    magmoms = get_magmoms(atoms)
    limits = np.array([START_SHARE * largest.get(z, np.inf) for z in atoms.numbers.tolist()])
    lengths = np.linalg.norm(magmoms, axis=1)
    long = lengths > limits
    if long.any():
        magmoms[long] *= (limits[long] / lengths[long])[:, None]
        set_magmoms(atoms, magmoms)
    return atoms


def check_moment_range(atoms: Atoms, model: object) -> None:
    """Refuse moments for which an energy would mean nothing.

    Args:
        atoms: Structure with moments.
        model: Energy model, or a host's model around one.

    Raises:
        StructureError: If a moment is above what the model was made for, and nothing holds its energy there.
    """
    if problem := moment_beyond(getattr(model, "model", model), atoms.numbers, get_magmoms(atoms)):
        raise StructureError(problem)

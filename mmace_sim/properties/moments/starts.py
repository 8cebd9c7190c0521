"""Random starts of a search for the lowest arrangement of moments at fixed atoms."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Bool, Float

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import bare_copy, get_magmoms
from mmace_sim.testing.structures import random_vectors
from mmace_sim.torchsim.freedom import FREE_MOMENTS

MAX_SCALE: float = 1.5
"""Moments of a random start are scaled by up to this factor."""


def random_moments(
    magmoms: Float[np.ndarray, "n_atoms 3"],
    rng: np.random.Generator,
    *,
    collinear: bool = False,
    fix_magnitude: bool = False,
) -> Float[np.ndarray, "n_atoms 3"]:
    """Rotate every moment by an angle from U[0, π] about a random axis and scale it by U[0, 1.5].

    Args:
        magmoms: Moments to begin with, in μB.
        rng: Source of randomness.
        collinear: Give each moment a random sign instead of rotating it.
        fix_magnitude: Do not scale.

    Returns:
        Moments, in μB.

    References:
        arXiv 2604.08143, moments of Mn3Pt.
    """
    n_atoms = len(magmoms)
    axes = random_vectors(rng, n_atoms)
    angles = rng.uniform(0.0, np.pi, n_atoms)[:, None]
    scales = rng.uniform(0.0, MAX_SCALE, n_atoms)[:, None]
    if collinear:
        turned = np.where(angles < np.pi / 2, 1.0, -1.0) * magmoms
    else:
        along = (axes * magmoms).sum(axis=1, keepdims=True)
        turned = np.cos(angles) * magmoms + np.sin(angles) * np.cross(axes, magmoms)
        turned += (1.0 - np.cos(angles)) * along * axes
    return turned if fix_magnitude else scales * turned


def random_starts(
    atoms: Atoms,
    n_starts: int,
    *,
    seed: int = 0,
    free: Bool[np.ndarray, " n_atoms"] | None = None,
    collinear: bool = False,
    fix_magnitude: bool = False,
) -> list[Atoms]:
    """Copies of a structure with random moments.

    Start k depends on the moments of the structure, the seed and k, and on nothing else in the batch.

    Args:
        atoms: Structure with moments.
        n_starts: Number of starts.
        seed: Seed.
        free: Moments that may change; all by default. The others are those of the structure.
        collinear: Signs instead of rotations.
        fix_magnitude: Keep all lengths.

    Returns:
        The starts; their array "free_moments" says which moments may change.

    Raises:
        MissingMomentsError: If the structure has no moments.
        StructureError: If there is no free moment that is not zero.
    """
    magmoms = get_magmoms(atoms)
    free = np.ones(len(atoms), dtype=bool) if free is None else free
    if not (np.linalg.norm(magmoms[free], axis=1) > 0).any():
        raise StructureError(
            f"{atoms.get_chemical_formula()}: no moment can change, because all of them are zero or kept. Give "
            "moments that random starts can turn and scale (--initial-magmoms high-spin), or free others (--only)."
        )
    starts = []
    for number in range(n_starts):
        rng = np.random.default_rng([seed, number])
        moments = random_moments(magmoms, rng, collinear=collinear, fix_magnitude=fix_magnitude)
        start = bare_copy(atoms, np.where(free[:, None], moments, magmoms))
        start.set_array(FREE_MOMENTS, free.copy())
        starts.append(start)
    return starts


def free_moments(atoms: Atoms, only: Sequence[str | int]) -> Bool[np.ndarray, " n_atoms"]:
    """Which moments of a structure may change.

    Args:
        atoms: Structure.
        only: Symbols of elements and indices of atoms (from 0); nothing means all.

    Returns:
        True for each that may change.

    Raises:
        StructureError: If an element is not in the structure, or an index is beyond it.
    """
    if not only:
        return np.ones(len(atoms), dtype=bool)
    free = np.zeros(len(atoms), dtype=bool)
    for item in only:
        if isinstance(item, str) and not item.lstrip("-").isdecimal():
            chosen = atoms.numbers == atomic_numbers.get(item, -1)
        else:
            chosen = np.arange(len(atoms)) == int(item)
        if not chosen.any():
            there = ", ".join(chemical_symbols[number] for number in np.unique(atoms.numbers))
            raise StructureError(
                f"only {item}: there is none in {atoms.get_chemical_formula()}. Name one of {there}, or an index from "
                f"0 to {len(atoms) - 1}."
            )
        free |= chosen
    return free

"""Candidates of no known crystal: random cells of given elements."""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from mmace_sim.base.extras import extra
from mmace_sim.data.candidates import CLOSEST, candidate
from mmace_sim.data.recipes.kitchen import Kitchen
from mmace_sim.structures.moment_table import usual_lengths

FILLING: float = 0.85
"""Volume of the spheres of covalent radii over that of a metal (bcc Fe 0.85, fcc Al 0.45, fcc Pt 0.67)."""

SMALLEST_RADIUS: float = 1.2
"""Radius of small atoms as far as volumes go, in Å: an oxide has about 9 Å³ for each atom."""

LONGEST: float = 1.2
"""Longest moment over the usual one."""

_LOOSE, _DENSE = 1.4, 0.9  # volumes over the expected one
_TRIES = 50
_CELLS = 20  # tried for each that is wanted


def random(kitchen: Kitchen) -> Iterator[Atoms]:
    """Random cells, compositions and moments, none of them with atoms on top of each other.

    Args:
        kitchen: The structures, of which the elements count, and settings.

    Raises:
        UnsupportedOptionError: If the package that makes the cells is not installed.
    """
    with extra("data", "Random structures"):
        import ase_ga.startgenerator  # noqa: F401
    symbols = kitchen.settings.elements or sorted(set(kitchen.atoms.get_chemical_symbols()))
    numbers = [atomic_numbers[symbol] for symbol in symbols]
    for _ in range(_CELLS * kitchen.count):
        atoms = _random_cell(numbers, kitchen)
        if atoms is not None:
            moments = _moments(atoms, kitchen)
            yield candidate(atoms, moments, hold=np.linalg.norm(moments, axis=1) > 0)


def _random_cell(numbers: list[int], kitchen: Kitchen) -> Atoms | None:
    """A cell with atoms at random places, or None if they did not fit in."""
    from ase_ga.startgenerator import StartGenerator
    from ase_ga.utilities import CellBounds, closest_distances_generator

    rng, most = kitchen.rng, kitchen.settings.max_atoms
    chosen = rng.choice(numbers, int(rng.integers(min(2, most), most + 1))).tolist()
    volume = sum(_volume(z) for z in chosen) * rng.uniform(_DENSE, _LOOSE)
    lengths = [0.5 * volume ** (1 / 3), 2.5 * volume ** (1 / 3)]
    generator = StartGenerator(
        Atoms(pbc=True),
        chosen,
        closest_distances_generator(numbers, CLOSEST),
        number_of_variable_cell_vectors=3,
        box_volume=volume,
        cellbounds=CellBounds(
            {key: [35, 145] for key in ("phi", "chi", "psi")} | dict.fromkeys("abc", lengths)
        ),
        test_dist_to_slab=False,
        rng=np.random.RandomState(int(rng.integers(2**31))),
    )
    return generator.get_new_candidate(maxiter=_TRIES)


def _volume(z: int) -> float:
    return 4 / 3 * np.pi * max(float(covalent_radii[z]), SMALLEST_RADIUS) ** 3 / FILLING


def _moments(atoms: Atoms, kitchen: Kitchen) -> np.ndarray:
    """Random lengths, and random directions or signs."""
    rng, n_atoms = kitchen.rng, len(atoms)
    directions = np.zeros((n_atoms, 3))
    if kitchen.settings.collinear:
        directions[:, 2] = rng.choice([-1, 1], n_atoms)
    else:
        directions = rng.normal(size=(n_atoms, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (rng.uniform(0, LONGEST, n_atoms) * usual_lengths(atoms))[:, None] * directions

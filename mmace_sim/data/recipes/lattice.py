"""Candidates of other cells and positions; moments are free and start as in the structure."""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from jaxtyping import Float

from mmace_sim.data.candidates import candidate
from mmace_sim.data.recipes.kitchen import Kitchen
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.cells import is_open
from mmace_sim.structures.lattice_points import hermite_normal_forms

_VACANCY_RATTLE = 0.03  # Å, so that forces of a symmetric vacancy are not all zero


def volumes(kitchen: Kitchen) -> Iterator[Atoms]:
    """Evenly spaced volumes."""
    if is_open(kitchen.atoms).any():
        return
    low, high = kitchen.settings.volume_range
    for factor in np.linspace(low, high, kitchen.count) if kitchen.count > 1 else [1.0]:
        scaled = kitchen.atoms.copy()
        scaled.set_cell(scaled.cell * factor ** (1 / 3), scale_atoms=True)
        yield candidate(scaled, get_magmoms(kitchen.atoms), hold=False)


def strains(kitchen: Kitchen) -> Iterator[Atoms]:
    """Random symmetric strains."""
    for _ in range(kitchen.count):
        yield candidate(strained(kitchen.atoms, kitchen), get_magmoms(kitchen.atoms), hold=False)


def rattles(kitchen: Kitchen) -> Iterator[Atoms]:
    """Random displacements, small and large."""
    roomy = enlarged(kitchen.atoms, 2, kitchen.settings.max_atoms, kitchen.rng)
    for _ in range(kitchen.count):
        yield candidate(rattled(roomy, kitchen), get_magmoms(roomy), hold=False)


def vacancies(kitchen: Kitchen) -> Iterator[Atoms]:
    """One atom taken out of the largest supercell there is room for, in turn."""
    roomy = enlarged(kitchen.atoms, kitchen.settings.max_atoms, kitchen.settings.max_atoms, kitchen.rng)
    if len(roomy) < 3:
        return
    for k in range(kitchen.count):
        left = roomy.copy()
        left.positions += kitchen.rng.normal(0, _VACANCY_RATTLE, left.positions.shape)
        del left[k % len(left)]
        yield candidate(left, get_magmoms(left), hold=False)


def strained(atoms: Atoms, kitchen: Kitchen) -> Atoms:
    """A copy with a random strain: of a slab in its plane, of a chain along it, however they lie in their cell."""
    components = kitchen.rng.uniform(-1, 1, (3, 3)) * kitchen.settings.max_strain
    along = np.linalg.pinv(atoms.cell.array[~is_open(atoms)])
    inside = along @ np.linalg.pinv(along)  # projects on what the lattice vectors without vacuum span
    deformation = np.eye(3) + inside @ (0.5 * (components + components.T)) @ inside
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ deformation)
    other.positions = atoms.positions @ deformation
    return other


def rattled(atoms: Atoms, kitchen: Kitchen) -> Atoms:
    """A copy with random displacements whose standard deviation is itself random."""
    other = atoms.copy()
    size = kitchen.rng.uniform(0.2, 1.0) * kitchen.settings.max_rattle
    shifts = kitchen.rng.normal(0, size, other.positions.shape)
    other.positions += shifts - shifts.mean(axis=0)
    return other


def enlarged(atoms: Atoms, n_atoms: int, max_atoms: int, rng: np.random.Generator) -> Atoms:
    """A supercell of about a number of atoms, as compact as it can be.

    Args:
        atoms: Structure with moments.
        n_atoms: Number of atoms it should have at least, if there is room.
        max_atoms: Largest number of atoms, unless the structure has more itself.
        rng: Chooses between supercells that are alike.

    Returns:
        The structure itself where it is large enough, or not periodic in all directions.
    """
    n_cells = min(-(-n_atoms // len(atoms)), max(max_atoms // len(atoms), 1))
    if n_cells == 1 or not atoms.pbc.all():
        return atoms
    forms = list(hermite_normal_forms(n_cells))
    extents = np.array([_extent(form @ complete_cell(atoms.cell)) for form in forms])
    compact = np.flatnonzero(extents < extents.min() + 1e-3)
    return supercell(atoms, forms[int(rng.choice(compact))])


def supercell(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """A supercell with moments, its vectors as short as they can be.

    Args:
        atoms: Structure with moments.
        matrix: Hermite normal form.
    """
    from ase.build import make_supercell, niggli_reduce

    other = make_supercell(atoms, matrix)
    bare = candidate(other, get_magmoms(other), hold=False)
    niggli_reduce(bare)
    return bare


def _extent(cell: Float[np.ndarray, "3 3"]) -> float:
    from ase.geometry import minkowski_reduce

    return float((minkowski_reduce(cell)[0] ** 2).sum())

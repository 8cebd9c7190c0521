"""Starting points of a search for the lowest magnetic order: collinear, spiral, random, non-magnetic."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int

from mmace_sim.graph.atoms import bare_copy, get_magmoms, set_magmoms
from mmace_sim.properties.order.declaration import OrderSettings
from mmace_sim.properties.order.enumeration import enumerate_collinear
from mmace_sim.structures.lattice_points import (
    build_supercell,
    cell_points,
    conventional_wave,
    distinct_superlattices,
    keeps_superlattice,
    superlattice_waves,
)
from mmace_sim.structures.magnetic_order import MagneticOrder, classify_order
from mmace_sim.structures.parent import MagneticParent

_SIMPLE = (MagneticOrder.FM, MagneticOrder.NON_MAGNETIC)


@dataclass(frozen=True)
class OrderStart:
    """One start.

    Attributes:
        name: FM, AFM-1, ferri-1, NM, spiral-1, random-1 or file; unique among the starts of a structure.
        atoms: The magnetic cell with moments.
        n_cells: Number of primitive cells in it; None for the cell of the file.
        propagation: Propagation vector in units of the reciprocal vectors of the conventional cell; None if there are
            several or none.
    """

    name: str
    atoms: Atoms
    n_cells: int | None = None
    propagation: tuple[Fraction, ...] | None = None


def order_starts(atoms: Atoms, settings: OrderSettings) -> tuple[list[OrderStart], str]:
    """All starts of one structure, the ferromagnet first.

    Args:
        atoms: Structure with moments: their lengths are those of the starts, their own order is one more start.
        settings: Which starts.

    Returns:
        The starts, and what is missing in words, or "".

    Raises:
        StructureError: If spglib finds no symmetry.
        MissingMomentsError: If the structure has no moments.
    """
    size = settings.max_supercell
    found = enumerate_collinear(atoms, size, max_orders=settings.max_orders, symprec=settings.symprec)
    parent = found.parent
    starts = [OrderStart(o.name, o.atoms, o.n_cells, o.propagation) for o in found.orders]
    if classify_order(get_magmoms(atoms)) not in _SIMPLE:
        starts.append(OrderStart("file", bare_copy(atoms)))
    if len(parent.sites) and settings.spirals:
        starts += _spirals(parent, size)
    rng = np.random.default_rng(settings.seed)
    if len(parent.sites):
        starts += _random_starts(parent, size, settings.random, rng)
    if settings.tilt:
        for start in starts:
            _tilt(start.atoms, settings.tilt, rng)
    if settings.non_magnetic or not starts:
        n_atoms = len(parent.atoms)
        starts.append(
            OrderStart("NM", build_supercell(parent, np.eye(3, dtype=int), np.zeros((n_atoms, 1, 3))), 1)
        )
    return starts, found.note


def _spirals(parent: MagneticParent, max_supercell: int) -> list[OrderStart]:
    """Flat spirals, all moments of a primitive cell parallel, one for each star of wave vectors."""
    starts: list[OrderStart] = []
    for n_cells in range(3, max_supercell + 1):
        for matrix in distinct_superlattices(parent, n_cells):
            for wave in _primitive_waves(parent, matrix):
                phases = 2 * np.pi * cell_points(matrix) @ wave
                directions = np.stack([np.cos(phases), np.sin(phases), 0 * phases], axis=1)
                moments = parent.lengths[:, None, None] * directions[None]
                supercell = build_supercell(parent, matrix, moments)
                name = f"spiral-{len(starts) + 1}"
                starts.append(OrderStart(name, supercell, n_cells, conventional_wave(parent, wave)))
    return starts


def _primitive_waves(
    parent: MagneticParent, matrix: Int[np.ndarray, "3 3"]
) -> Iterator[Float[np.ndarray, " 3"]]:
    """Waves that need all of a supercell, one of each star."""
    n_cells = int(np.diag(matrix).prod())
    turns = np.unique(parent.rotations[keeps_superlattice(parent.rotations, matrix)], axis=0)
    seen: set[tuple[int, ...]] = set()
    for wave in superlattice_waves(matrix):
        numbers = np.rint(wave * n_cells).astype(int)
        if np.gcd.reduce([*numbers, n_cells]) > 1 or tuple(numbers) in seen:
            continue
        star = np.concatenate([numbers @ turns, -numbers @ turns]) % n_cells
        seen.update(map(tuple, star.tolist()))
        yield wave


def _random_starts(
    parent: MagneticParent, max_supercell: int, count: int, rng: np.random.Generator
) -> list[OrderStart]:
    """Random directions, in the most compact supercell of each size, large ones first, then in the next ones."""
    if count == 0:
        return []
    sizes = [
        sorted(distinct_superlattices(parent, n_cells), key=lambda matrix: _extent(parent, matrix))
        for n_cells in range(max_supercell, 0, -1)
        if n_cells * len(parent.sites) > 1 or max_supercell == 1
    ]
    ranked = [m for row in itertools.zip_longest(*sizes) for m in row if m is not None]
    starts = []
    for k, matrix in zip(range(count), itertools.cycle(ranked), strict=False):
        n_cells = len(cell_points(matrix))
        directions = rng.normal(size=(len(parent.atoms), n_cells, 3))
        directions /= np.linalg.norm(directions, axis=2, keepdims=True)
        moments = parent.lengths[:, None, None] * directions
        starts.append(OrderStart(f"random-{k + 1}", build_supercell(parent, matrix, moments), n_cells))
    return starts


def _extent(parent: MagneticParent, matrix: Int[np.ndarray, "3 3"]) -> float:
    """Sum of the squares of the shortest cell vectors."""
    cell = build_supercell(parent, matrix, np.zeros((len(parent.atoms), len(cell_points(matrix)), 3))).cell
    return round(float((cell.array**2).sum()), 6)


def _tilt(atoms: Atoms, degrees: float, rng: np.random.Generator) -> None:
    """Turn every moment by an angle about a random axis perpendicular to it."""
    magmoms = get_magmoms(atoms)
    lengths = np.linalg.norm(magmoms, axis=1, keepdims=True)
    sideways = np.cross(magmoms, rng.normal(size=magmoms.shape))
    sideways *= lengths / np.linalg.norm(sideways, axis=1, keepdims=True).clip(min=1e-12)
    angle = np.radians(degrees)
    set_magmoms(atoms, np.cos(angle) * magmoms + np.sin(angle) * sideways)

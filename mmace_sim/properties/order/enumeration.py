"""Collinear magnetic orders of a crystal, each once: superlattices, signs on magnetic sites, reduced by symmetry.

Two orders are the same if a symmetry operation of the structure, with or without time reversal, maps one onto the
other. An order that repeats itself in a smaller cell belongs to that cell: the ferromagnet appears once, the simple
antiferromagnet of a lattice with one atom per cell in two cells.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float, Int

from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.structures.lattice_points import (
    build_supercell,
    cell_points,
    conventional_wave,
    distinct_superlattices,
    identity_operation,
    keeps_superlattice,
    site_permutations,
    superlattice_waves,
)
from mmace_sim.structures.magnetic_order import MagneticOrder, classify_order
from mmace_sim.structures.parent import MagneticParent, axial_rotations, magnetic_parent, rotation_axes

MAX_SITES: int = 16
"""With more magnetic sites in a supercell only whole sets of equivalent atoms and whole cells are flipped."""

MAX_SETS: int = 8
"""Of more sets of equivalent atoms than this, only the first ones are flipped then."""

_CHUNK = 4096


@dataclass(frozen=True)
class CollinearOrder:
    """One collinear order.

    Attributes:
        name: FM, AFM-1, AFM-2, …, ferri-1, …
        kind: What the signs make of the starting moments.
        atoms: The magnetic cell, with moments along the axis that keeps most symmetry.
        supercell: Hermite normal form of the magnetic cell, in vectors of the primitive cell.
        signs: Sign of each moment; 0 for atoms that do not carry the order.
        propagation: Propagation vector in units of the reciprocal vectors of the conventional cell, up to symmetry;
            None if there are several.
        kept_symmetry: Fraction of the operations of the structure that the order keeps, with or without time reversal.
    """

    name: str
    kind: MagneticOrder
    atoms: Atoms
    supercell: Int[np.ndarray, "3 3"]
    signs: Int[np.ndarray, " n_atoms"]
    propagation: tuple[Fraction, ...] | None
    kept_symmetry: float

    @property
    def n_cells(self) -> int:
        """Number of primitive cells in the magnetic cell."""
        return int(np.diag(self.supercell).prod())


@dataclass(frozen=True)
class Enumeration:
    """Orders of one structure.

    Attributes:
        parent: The primitive cell and its symmetry.
        orders: The ferromagnet first, then from simple to complicated.
        n_found: How many there are; more than `orders` if the number was limited.
        note: What is missing, in words, or "".
    """

    parent: MagneticParent
    orders: list[CollinearOrder]
    n_found: int
    note: str


@dataclass(frozen=True)
class _Pattern:
    """Signs on the magnetic sites of a supercell, before atoms are made of it."""

    matrix: Int[np.ndarray, "3 3"]
    signs: Int[np.ndarray, " n"]
    kept_symmetry: float
    is_balanced: bool
    """Whether each set of equivalent sites points one way or cancels."""

    @property
    def is_ferromagnetic(self) -> bool:
        """Whether all sites point the same way."""
        return bool((self.signs == self.signs[0]).all())

    def key(self) -> tuple[float, ...]:
        """Small for the simple ones."""
        n_cells = int(np.diag(self.matrix).prod())
        if self.is_ferromagnetic:
            return (-1.0,)
        return (not self.is_balanced, n_cells, -round(self.kept_symmetry, 9), abs(int(self.signs.sum())))


def enumerate_collinear(
    atoms: Atoms, max_supercell: int = 2, *, max_orders: int | None = None, symprec: float = 0.01
) -> Enumeration:
    """All collinear orders of a structure up to a size of the magnetic cell.

    Signs are put on the magnetic atoms (see `magnetic_parent`); weaker moments start parallel in the ferromagnet and at
    zero in the others. The order is: ferromagnet; orders in which every set of equivalent sites points one way or
    cancels, small cells before large ones and symmetric before less symmetric ones; the others (such as up, up, down).

    Args:
        atoms: Structure with moments, whose lengths are those of the start. Its primitive cell is what is counted.
        max_supercell: Largest number of primitive cells in the magnetic cell.
        max_orders: Largest number of orders; None for all.
        symprec: Tolerance of positions, in Å.

    Returns:
        The orders, none if no atom has a moment.

    Raises:
        UnsupportedOptionError: If a number is below 1.
        StructureError: If spglib finds no symmetry.
        MissingMomentsError: If the structure has no moments.
    """
    if max_supercell < 1 or (max_orders is not None and max_orders < 1):
        raise UnsupportedOptionError(
            f"max_supercell = {max_supercell}, max_orders = {max_orders}: expected positive integers."
        )
    parent = magnetic_parent(atoms, symprec=symprec)
    if len(parent.sites) == 0:
        return Enumeration(parent, [], 0, "no atom has a moment")
    patterns, skipped = _all_patterns(parent, max_supercell)
    patterns.sort(key=_Pattern.key)
    chosen = patterns[:max_orders]
    notes = []
    if skipped:
        notes.append(
            f"more than {MAX_SITES} magnetic sites in {' or '.join(map(str, skipped))} primitive cells: only whole "
            "sets of equivalent atoms and whole cells are flipped there"
        )
    if len(chosen) < len(patterns):
        notes.append(f"{len(patterns)} collinear orders, the simplest {len(chosen)} are taken (--max-orders)")
    return Enumeration(parent, _named(parent, chosen), len(patterns), "; ".join(notes))


def _all_patterns(parent: MagneticParent, max_supercell: int) -> tuple[list[_Pattern], list[int]]:
    """Distinct patterns, and the sizes of cells where they are not all."""
    patterns, skipped = [], []
    for n_cells in range(1, max_supercell + 1):
        if len(parent.sites) * n_cells > MAX_SITES:
            skipped.append(n_cells)
        for matrix in distinct_superlattices(parent, n_cells):
            patterns += _distinct_patterns(parent, matrix)
    return patterns, skipped


def _distinct_patterns(parent: MagneticParent, matrix: Int[np.ndarray, "3 3"]) -> list[_Pattern]:
    """Patterns of one superlattice, one of each kind."""
    operations = np.flatnonzero(keeps_superlattice(parent.rotations, matrix))
    permutations = site_permutations(parent, matrix, operations)
    n_cells, n_sites = permutations.shape[1:]
    translations = site_permutations(parent, matrix, np.array([identity_operation(parent)]))[0, 1:]
    permutations = permutations.reshape(-1, n_sites)
    exhaustive = n_sites <= MAX_SITES
    candidates = _all_signs(n_sites) if exhaustive else _whole_flips(parent, matrix)
    total = n_cells * len(parent.rotations)
    orbits = np.repeat(parent.orbits[parent.sites], n_cells)
    found: list[_Pattern] = []
    seen: set[bytes] = set()
    for signs in candidates:
        signs = signs[~_repeats(signs, translations)]
        if exhaustive:
            signs = signs[_is_smallest(signs, permutations)]
        for row in signs:
            if not exhaustive and not _is_new(row, permutations, seen):
                continue
            moved = _moved(row, permutations)
            kept = (moved == row).all(axis=1).sum() + (moved == -row).all(axis=1).sum()
            sets = [row[orbits == orbit] for orbit in np.unique(orbits)]
            balanced = all(abs(each.sum()) in (0, len(each)) for each in sets)
            found.append(_Pattern(matrix, row * row[0], float(kept / total), balanced))
    return found


def _all_signs(n_sites: int) -> Iterator[Int[np.ndarray, "n n_sites"]]:
    """All signs with the last site up, in portions."""
    shifts = np.arange(n_sites)
    for start in range(0, 2 ** (n_sites - 1), _CHUNK):
        codes = np.arange(start, min(start + _CHUNK, 2 ** (n_sites - 1)))
        yield 1 - 2 * ((codes[:, None] >> shifts) & 1)


def _whole_flips(
    parent: MagneticParent, matrix: Int[np.ndarray, "3 3"]
) -> Iterator[Int[np.ndarray, "n n_sites"]]:
    """Sets of equivalent sites up or down as a whole, times one sign for each cell."""
    cells = cell_points(matrix)
    orbits, members = np.unique(parent.orbits[parent.sites], return_inverse=True)
    halves = np.array([half for half in itertools.product((0, 1), repeat=3) if not (matrix @ half % 2).any()])
    waves = 1 - 2 * (halves @ cells.T % 2)
    n_orbits = min(len(orbits), MAX_SETS)
    for signs in _all_signs(n_orbits):
        full = np.concatenate([signs, np.ones((len(signs), len(orbits) - n_orbits), dtype=int)], axis=1)
        yield (full[:, None, members, None] * waves[None, :, None, :]).reshape(-1, len(members) * len(cells))


def _moved(
    signs: Int[np.ndarray, " n"], permutations: Int[np.ndarray, "n_perms n"]
) -> Int[np.ndarray, "n_perms n"]:
    """Images of a pattern."""
    moved = np.empty_like(permutations)
    np.put_along_axis(moved, permutations, np.broadcast_to(signs, permutations.shape), axis=1)
    return moved


def _repeats(
    signs: Int[np.ndarray, "m n"], translations: Int[np.ndarray, "n_shifts n"]
) -> Bool[np.ndarray, " m"]:
    """Whether a translation of the crystal leaves a pattern unchanged."""
    repeats = np.zeros(len(signs), dtype=bool)
    for permutation in translations:
        repeats |= (signs[:, permutation] == signs).all(axis=1)
    return repeats


def _is_smallest(
    signs: Int[np.ndarray, "m n"], permutations: Int[np.ndarray, "n_perms n"]
) -> Bool[np.ndarray, " m"]:
    """Whether a pattern has the smallest binary number among all its images."""
    weights = np.zeros((signs.shape[1], len(permutations)))
    weights[np.arange(signs.shape[1])] = (2.0**permutations).T
    bits = (1 - signs) / 2
    images = bits @ weights
    images = np.minimum(images, 2.0 ** signs.shape[1] - 1 - images)
    own = bits @ 2.0 ** np.arange(signs.shape[1])
    return images.min(axis=1, initial=np.inf) >= own


def _is_new(
    signs: Int[np.ndarray, " n"], permutations: Int[np.ndarray, "n_perms n"], seen: set[bytes]
) -> bool:
    """Whether no image of a pattern was seen; then all are remembered."""
    if signs.astype(np.int8).tobytes() in seen:
        return False
    moved = np.unique(_moved(signs, permutations), axis=0).astype(np.int8)
    seen.update(row.tobytes() for image in (moved, -moved) for row in image)
    return True


def _named(parent: MagneticParent, patterns: list[_Pattern]) -> list[CollinearOrder]:
    """Orders with atoms and names."""
    counts: Counter[str] = Counter()
    orders = []
    for pattern in patterns:
        signs = np.zeros((len(parent.atoms), len(cell_points(pattern.matrix))), dtype=int)
        signs[parent.sites] = pattern.signs.reshape(len(parent.sites), -1)
        start = np.where(signs == 0, 1, signs) if pattern.is_ferromagnetic else signs
        axis = _moment_axis(parent, pattern.matrix, pattern.signs)
        moments = (start * parent.lengths[:, None])[:, :, None] * axis + 0.0
        atoms = build_supercell(parent, pattern.matrix, moments)
        kind = classify_order(moments)
        counts[kind] += 1
        orders.append(
            CollinearOrder(
                name=str(kind) if pattern.is_ferromagnetic else f"{kind}-{counts[kind]}",
                kind=kind,
                atoms=atoms,
                supercell=pattern.matrix,
                signs=signs.ravel(),
                propagation=_propagation(parent, pattern),
                kept_symmetry=pattern.kept_symmetry,
            )
        )
    return orders


def _moment_axis(
    parent: MagneticParent, matrix: Int[np.ndarray, "3 3"], signs: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " 3"]:
    """The axis for the moments of a collinear order that keeps most of its symmetry; z if several do.

    Without spin–orbit coupling the axis has no effect on the energy, but the magnetic space group depends on it.
    """
    operations = np.flatnonzero(keeps_superlattice(parent.rotations, matrix))
    moved = _moved(signs, site_permutations(parent, matrix, operations).reshape(-1, len(signs)))
    kept = (
        ((moved == signs).all(axis=1) | (moved == -signs).all(axis=1))
        .reshape(len(operations), -1)
        .any(axis=1)
    )
    turns = axial_rotations(parent.cell, parent.rotations[operations[kept]])
    axes = rotation_axes(turns)
    along = np.abs(np.einsum("ai,tij,aj->at", axes, turns, axes))
    votes = (along > 1 - 1e-6).sum(axis=1)
    return axes[np.lexsort((-np.round(np.abs(axes[:, 2]), 6), -votes))[0]]


def _propagation(parent: MagneticParent, pattern: _Pattern) -> tuple[Fraction, ...] | None:
    """The only propagation vector of a pattern up to its sign, or None."""
    waves = superlattice_waves(pattern.matrix)
    phases = np.exp(-2j * np.pi * cell_points(pattern.matrix) @ waves.T)
    strength = (np.abs(pattern.signs.reshape(len(parent.sites), -1) @ phases) ** 2).sum(axis=0)
    present = waves[strength > 1e-6 * strength.sum()]
    sums, differences = present + present[0], present - present[0]
    is_same = [np.abs(x - np.rint(x)).max(axis=1) < 1e-6 for x in (sums, differences)]
    return conventional_wave(parent, present[0]) if (is_same[0] | is_same[1]).all() else None

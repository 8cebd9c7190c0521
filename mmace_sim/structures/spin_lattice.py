"""A collinear magnet as exchange constants see it: magnetic primitive cell, pairs, their symmetry, supercells."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int
from matscipy.neighbours import neighbour_list

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.spglib_call import call_spglib
from mmace_sim.structures.lattice_points import cell_points
from mmace_sim.structures.magnetic_order import (
    INDUCED_TOL,
    MOMENT_TOL,
    MagneticOrder,
    classify_order,
    magnetic_primitive,
)
from mmace_sim.structures.parent import operation_images


@dataclass(frozen=True)
class SpinLattice:
    """The magnetic primitive cell of a collinear magnet.

    Attributes:
        atoms: Cell with all atoms, moments along `axis`.
        axis: Unit vector that all moments are along.
        sites: Atoms that carry a moment.
        signs: +1 or −1 for each site: its moment is sign · length · axis.
        lengths: Length of the moment of each site, in μB.
        rotations: Operations of the magnetic lattice (up to time reversal), Cartesian.
        fractional: The same in fractional coordinates.
        images: Atom that each operation moves each atom to.
        offsets: Cell that each operation moves each atom of the first cell to.
    """

    atoms: Atoms
    axis: Float[np.ndarray, "3"]
    sites: Int[np.ndarray, " n_sites"]
    signs: Float[np.ndarray, " n_sites"]
    lengths: Float[np.ndarray, " n_sites"]
    rotations: Float[np.ndarray, "n_ops 3 3"]
    fractional: Int[np.ndarray, "n_ops 3 3"]
    images: Int[np.ndarray, "n_ops n_atoms"]
    offsets: Int[np.ndarray, "n_ops n_atoms 3"]

    @property
    def cell(self) -> Float[np.ndarray, "3 3"]:
        """Cell vectors as rows, in Å."""
        return self.atoms.cell.array

    @property
    def symbols(self) -> list[str]:
        """Chemical symbol of each site."""
        return [self.atoms.symbols[int(site)] for site in self.sites]

    def supercell(
        self, matrix: Int[np.ndarray, "3 3"], directions: Float[np.ndarray, "n_sites n_cells 3"]
    ) -> Atoms:
        """A supercell whose moments keep their lengths and point elsewhere.

        Args:
            matrix: Hermite normal form.
            directions: Unit vectors, in the order of `cell_points`.

        Returns:
            Structure; site k in cell c is atom ``sites[k] · n_cells + c``.
        """
        cells = cell_points(matrix)
        n_cells = len(cells)
        positions = self.atoms.positions[:, None] + (cells @ self.cell)[None]
        moments = np.repeat(get_magmoms(self.atoms)[:, None], n_cells, axis=1)
        moments[self.sites] = self.lengths[:, None, None] * directions
        supercell = Atoms(
            numbers=np.repeat(self.atoms.numbers, n_cells),
            positions=positions.reshape(-1, 3),
            cell=matrix @ self.cell,
            pbc=True,
        )
        set_magmoms(supercell, moments.reshape(-1, 3))
        return supercell


@dataclass(frozen=True)
class Pairs:
    """Pairs of sites within the cutoff, each in both directions.

    Attributes:
        first: Site in the first cell.
        second: Site in the cell `shift`.
        shifts: Cell of the second site.
        vectors: From the first to the second, in Å.
        distances: Their lengths, in Å.
        orbits: Number of the set of equivalent pairs, by distance.
        images: Pair that each operation makes of each pair.
        reverse: The same pair seen from the other end.
    """

    first: Int[np.ndarray, " n_pairs"]
    second: Int[np.ndarray, " n_pairs"]
    shifts: Int[np.ndarray, "n_pairs 3"]
    vectors: Float[np.ndarray, "n_pairs 3"]
    distances: Float[np.ndarray, " n_pairs"]
    orbits: Int[np.ndarray, " n_pairs"]
    images: Int[np.ndarray, "n_ops n_pairs"]
    reverse: Int[np.ndarray, " n_pairs"]

    def __len__(self) -> int:
        return len(self.first)

    @property
    def n_orbits(self) -> int:
        """Number of sets of equivalent pairs."""
        return int(self.orbits.max(initial=-1)) + 1

    def representatives(self) -> Int[np.ndarray, " n_orbits"]:
        """The first pair of each set."""
        return np.array([np.flatnonzero(self.orbits == k)[0] for k in range(self.n_orbits)], dtype=int)

    def average(
        self, tensors: Float[np.ndarray, "n_pairs 3 3"], rotations: Float[np.ndarray, "n_ops 3 3"]
    ) -> Float[np.ndarray, "n_pairs 3 3"]:
        """Tensors as symmetry demands them: the mean of R⁻¹ J R over operations, and J_ji = J_ijᵀ.

        Args:
            tensors: One for each pair; NaN for pairs that are not known.
            rotations: Cartesian operations.

        Returns:
            Means over what is known of each set of equivalent pairs.
        """
        known = np.isfinite(tensors).all(axis=(1, 2))
        both = known[:, None, None] * np.nan_to_num(tensors)
        total, count = np.zeros_like(both), np.zeros(len(both))
        for rotation, image in zip(
            rotations, self.images, strict=True
        ):  # one by one: all at once is much memory
            for values, there in (
                (both[image], known[image]),
                (both[self.reverse[image]].swapaxes(1, 2), known[self.reverse[image]]),
            ):
                total += np.einsum("ba,pbc,cd->pad", rotation, values, rotation)
                count += there
        with np.errstate(invalid="ignore"):  # 0/0 where nothing is known of a set
            return total / count[:, None, None]


def spin_lattice(atoms: Atoms, *, symprec: float = 0.01) -> SpinLattice:
    """Find the magnetic primitive cell of a collinear structure, and its symmetry.

    Args:
        atoms: Structure with moments.
        symprec: Tolerance of positions in Å, and of lengths of moments in 0.1 μB.

    Returns:
        The lattice. A common rotation of all moments is no part of its symmetry.

    Raises:
        StructureError: If the structure is no crystal, not collinear or not magnetic.
    """
    magmoms = get_magmoms(atoms)
    order = classify_order(magmoms)
    if not atoms.pbc.all():
        raise StructureError("exchange constants need a crystal that is periodic in all three directions.")
    if order in (MagneticOrder.NON_COLLINEAR, MagneticOrder.NON_MAGNETIC):
        raise StructureError(
            f"exchange constants need a collinear magnetic order, got one that is {order}. "
            "Choose the order with --initial-magmoms."
        )
    axis = _axis(magmoms)
    cell = _primitive(atoms, magmoms @ axis, axis, symprec)
    along = get_magmoms(cell) @ axis
    sites = np.flatnonzero(np.abs(along) >= max(MOMENT_TOL, INDUCED_TOL * np.abs(along).max()))
    fractional, translations = _operations(cell, np.abs(along), symprec)
    images, offsets = operation_images(cell, fractional, translations, symprec)
    kept = np.abs((np.sign(along[sites]) * np.sign(along[images[:, sites]])).sum(axis=1)) == len(sites)
    columns = cell.cell.array.T
    return SpinLattice(
        atoms=cell,
        axis=axis,
        sites=sites,
        signs=np.sign(along[sites]),
        lengths=np.abs(along[sites]),
        rotations=columns @ fractional[kept] @ np.linalg.inv(columns),
        fractional=fractional[kept],
        images=images[kept],
        offsets=offsets[kept],
    )


def find_pairs(lattice: SpinLattice, cutoff: float) -> Pairs:
    """All pairs of sites closer than a cutoff.

    Args:
        lattice: The magnet.
        cutoff: Largest distance, in Å.

    Returns:
        Pairs sorted by distance.

    Raises:
        StructureError: If there are none.
    """
    magnetic = lattice.atoms[lattice.sites]
    first, second, shifts, vectors, distances = neighbour_list("ijSDd", magnetic, cutoff=cutoff)
    if len(first) == 0:
        raise StructureError(f"no two magnetic atoms are closer than the cutoff of {cutoff} Å. Raise it.")
    order = np.lexsort((*shifts.T, second, first, np.round(distances, 4)))
    first, second, shifts = first[order].astype(int), second[order].astype(int), shifts[order].astype(int)
    place = _finder(first, second, shifts)
    site_of = {int(atom): k for k, atom in enumerate(lattice.sites)}
    images = np.empty((len(lattice.fractional), len(first)), dtype=int)
    for g, rotation in enumerate(lattice.fractional):
        moved = np.array([site_of[int(atom)] for atom in lattice.images[g, lattice.sites]])
        jumps = lattice.offsets[g, lattice.sites]
        images[g] = place(moved[first], moved[second], shifts @ rotation.T + jumps[second] - jumps[first])
    reverse = place(second, first, -shifts)
    lowest = np.minimum(images.min(axis=0), images[:, reverse].min(axis=0))
    orbits = np.unique(lowest, return_inverse=True)[1]
    return Pairs(first, second, shifts, vectors[order], distances[order], orbits, images, reverse)


def _finder(
    first: Int[np.ndarray, " n_pairs"],
    second: Int[np.ndarray, " n_pairs"],
    shifts: Int[np.ndarray, "n_pairs 3"],
) -> Callable[..., Int[np.ndarray, " n"]]:
    """A function that gives the numbers of pairs by their ends."""
    reach = int(np.abs(shifts).max()) + 1
    size, n = 2 * reach + 1, int(max(first.max(), second.max())) + 1

    def code(i: np.ndarray, j: np.ndarray, cells: np.ndarray) -> np.ndarray:
        x, y, z = np.clip(cells + reach, 0, size - 1).T
        return (((i * n + j) * size + x) * size + y) * size + z

    codes = code(first, second, shifts)
    order = np.argsort(codes)

    def find(i: np.ndarray, j: np.ndarray, cells: np.ndarray) -> np.ndarray:
        wanted = code(i, j, cells)
        at = order[np.searchsorted(codes[order], wanted).clip(max=len(order) - 1)]
        if (codes[at] != wanted).any():
            raise StructureError(
                "the pairs within the cutoff do not have the symmetry of the crystal: a distance is as large as the "
                "cutoff, within the tolerance of the symmetry. Change the cutoff a little."
            )
        return at

    return find


def _axis(magmoms: Float[np.ndarray, "n_atoms 3"]) -> Float[np.ndarray, "3"]:
    """The common axis, along the first of the longest moments."""
    longest = magmoms[np.argmax(np.round(np.linalg.norm(magmoms, axis=1), 6))]
    return longest / np.linalg.norm(longest)


def _kinds(numbers: np.ndarray, values: np.ndarray, symprec: float) -> list[int]:
    """One number for each kind of atom: element and moment."""
    known: list[tuple[int, float]] = []
    kinds = []
    for number, value in zip(numbers, values, strict=True):
        match = [k for k, (z, m) in enumerate(known) if z == number and abs(m - value) < 10 * symprec]
        kinds.append(match[0] if match else len(known))
        known += [] if match else [(number, value)]
    return kinds


def _primitive(atoms: Atoms, along: Float[np.ndarray, " n"], axis: np.ndarray, symprec: float) -> Atoms:
    """The primitive cell of a structure with moments, in its own orientation, with short vectors."""
    moments = along[:, None] * axis
    primitive, members = magnetic_primitive(atoms, moments, symprec=symprec)
    if primitive is atoms:
        primitive = atoms.copy()
        primitive.calc = None
    else:
        primitive.wrap(eps=1e-6)
    set_magmoms(primitive, moments[members])
    return primitive


def _operations(
    atoms: Atoms, lengths: Float[np.ndarray, " n"], symprec: float
) -> tuple[Int[np.ndarray, "n_ops 3 3"], Float[np.ndarray, "n_ops 3"]]:
    """Operations that keep elements and lengths of moments."""
    kinds = Atoms(cell=atoms.cell, positions=atoms.positions, pbc=True)
    kinds.numbers[:] = _kinds(atoms.numbers, lengths, symprec)
    found = call_spglib("get_symmetry", kinds, symprec=symprec)
    if found is None:
        raise StructureError("spglib finds no symmetry of the structure; are two atoms at the same place?")
    return np.asarray(found["rotations"], dtype=int), np.asarray(found["translations"])

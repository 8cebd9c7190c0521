"""Heisenberg models of crystals, and their supercells as networks of spins for Monte Carlo."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int

from mmace_sim.errors import StructureError
from mmace_sim.structures.spin_lattice import find_pairs, spin_lattice
from mmace_sim.units import BOLTZMANN_EV_PER_K

_SHELL_TOL = 0.05
"""Distances of shells may differ from those of pairs by this much, in Å."""


@dataclass(frozen=True)
class SpinHamiltonian:
    """E = −Σ_{i<j} J'_ij e_i·e_j over unique pairs of unit vectors: J' > 0 is ferromagnetic.

    Attributes:
        cell: Vectors of the magnetic primitive cell as rows, in Å.
        signs: +1 or −1 for each site of the cell: the order that the exchange belongs to.
        lengths: Lengths of the moments, in μB.
        first: Site in the first cell of each pair; each pair is there from both ends.
        second: The other site.
        shifts: Its cell.
        exchange: J' of each pair, in eV.
    """

    cell: Float[np.ndarray, "3 3"]
    signs: Float[np.ndarray, " n_sites"]
    lengths: Float[np.ndarray, " n_sites"]
    first: Int[np.ndarray, " n_pairs"]
    second: Int[np.ndarray, " n_pairs"]
    shifts: Int[np.ndarray, "n_pairs 3"]
    exchange: Float[np.ndarray, " n_pairs"]

    @classmethod
    def from_shells(cls, atoms: Atoms, shells: Sequence[tuple[float, float]]) -> "SpinHamiltonian":
        """Exchange by distance alone.

        Args:
            atoms: Crystal with collinear moments.
            shells: Pairs of a distance in Å and J' there in eV.

        Raises:
            StructureError: If a shell is empty.
        """
        lattice = spin_lattice(atoms)
        pairs = find_pairs(lattice, max(distance for distance, _ in shells) + _SHELL_TOL)
        values = np.zeros(len(pairs))
        for distance, value in shells:
            inside = np.abs(pairs.distances - distance) < _SHELL_TOL
            if not inside.any():
                raise StructureError(f"no pair of magnetic atoms is {distance} Å apart.")
            values[inside] = value
        kept = values != 0
        return cls(
            lattice.cell,
            lattice.signs,
            lattice.lengths,
            pairs.first[kept],
            pairs.second[kept],
            pairs.shifts[kept],
            values[kept],
        )

    @property
    def mean_field_temperature(self) -> float:
        """Mean-field ordering temperature, k T = ⅓ of the largest eigenvalue of Σ_R s_a s_b J'_ab, in K."""
        return self._mean_field(np.ones(len(self.signs)))

    @property
    def quantum_factor(self) -> float:
        """Ratio of mean-field ordering temperatures of quantum spins S = |m|/2 (g = 2) and of classical ones.

        (S + 1)/S where all spins are the same; elsewhere of the eigenvalues of √(q_a q_b) J'_ab with q = (S + 1)/S.
        """
        return self._mean_field(1 + 2 / self.lengths) / self.mean_field_temperature

    def _mean_field(self, factors: Float[np.ndarray, " n_sites"]) -> float:
        n = len(self.signs)
        sums = np.zeros((n, n))
        np.add.at(sums, (self.first, self.second), self.exchange)
        sums *= np.outer(self.signs * np.sqrt(factors), self.signs * np.sqrt(factors))
        return float(np.linalg.eigvalsh(0.5 * (sums + sums.T)).max() / (3 * BOLTZMANN_EV_PER_K))

    @cached_property
    def block(self) -> Int[np.ndarray, "3 3"]:
        """The most cubic cell of at most four primitive cells, as multiples of the primitive vectors."""
        choices = np.array(list(product((-1, 0, 1), repeat=9))).reshape(-1, 3, 3)
        volumes = np.rint(np.linalg.det(choices)).astype(int)
        choices, volumes = (
            choices[(volumes > 0) & (volumes <= 4)],
            volumes[(volumes > 0) & (volumes <= 4)],
        )
        vectors = choices @ self.cell
        shape = (vectors**2).sum(axis=(1, 2)) / np.abs(np.linalg.det(vectors)) ** (2 / 3)
        near = shape < shape.min() + 1e-6
        traces = np.trace(choices[near], axis1=1, axis2=2)
        return choices[near][np.lexsort((-traces, volumes[near]))[0]]

    def network(self, size: int) -> "SpinNetwork":
        """The spins of a periodic supercell.

        Pairs that a small supercell makes the same are one; a spin and its own image are a constant.

        Args:
            size: Multiple of each vector of `block`.
        """
        cells, keys = self._cells(size)
        order = np.argsort(keys)
        n_cells, n_sites = len(cells), len(self.signs)
        ends = np.stack([self._keys(self.shifts, size), self.first, self.second], axis=1)
        (jumps, first, second), kept, summed = _merged(ends, self.exchange)
        own = (jumps == 0) & (first == second)
        constant = -0.5 * float(summed[own].sum()) / n_sites
        width = max(int(np.bincount(first[~own], minlength=n_sites).max()), 1)
        neighbors = np.repeat(np.arange(n_sites * n_cells)[:, None], width, axis=1)
        exchange = np.zeros((n_sites * n_cells, width))
        filled = np.zeros(n_sites, dtype=int)
        last, moved = None, order
        for k in np.flatnonzero(~own):  # sorted by the jump between cells
            if jumps[k] != last:
                last = jumps[k]
                moved = order[np.searchsorted(keys[order], self._keys(cells + self.shifts[kept[k]], size))]
            i = first[k]
            rows = slice(i * n_cells, (i + 1) * n_cells)
            neighbors[rows, filled[i]] = second[k] * n_cells + moved
            exchange[rows, filled[i]] = summed[k]
            filled[i] += 1
        signs, lengths = np.repeat(self.signs, n_cells), np.repeat(self.lengths, n_cells)
        return SpinNetwork.build(neighbors, exchange, signs, lengths, constant=constant)

    def _cells(self, size: int) -> tuple[Int[np.ndarray, "n 3"], Int[np.ndarray, " n"]]:
        """Primitive cells of a supercell, and a number that tells them apart."""
        n_block = round(float(np.linalg.det(self.block)))
        near = np.array(list(product(range(-3, 4), repeat=3)))
        _, first = np.unique(self._keys(near, 1), return_index=True)
        inner = near[first]
        if len(inner) != n_block:
            raise AssertionError("the block of primitive cells is incomplete")
        outer = np.array(list(product(range(size), repeat=3))) @ self.block
        cells = (outer[:, None] + inner[None]).reshape(-1, 3)
        return cells, self._keys(cells, size)

    def _keys(self, cells: Int[np.ndarray, "n 3"], size: int) -> Int[np.ndarray, " n"]:
        """Equal for cells that differ by a vector of the supercell, different for all others."""
        matrix = size * self.block
        volume = round(float(np.linalg.det(matrix)))
        adjugate = np.rint(np.linalg.inv(matrix) * volume).astype(int)
        return ((cells @ adjugate) % volume) @ np.array([volume**2, volume, 1])


@dataclass(frozen=True)
class SpinNetwork:
    """Spins, sorted so that those of one color stand together; no two of one color interact.

    Attributes:
        neighbors: Neighbours of each spin; short rows are filled up with the spin itself.
        exchange: J' of each, in eV; zero on filling.
        signs: Reference order.
        lengths: Lengths of the moments, in μB.
        bounds: First spin of each color, and the number of spins.
        constant: Energy that no direction changes (of spins and their own images), in eV per spin.
    """

    neighbors: Int[np.ndarray, "n_spins n_neighbors"]
    exchange: Float[np.ndarray, "n_spins n_neighbors"]
    signs: Float[np.ndarray, " n_spins"]
    lengths: Float[np.ndarray, " n_spins"]
    bounds: list[int]
    constant: float = 0.0

    @classmethod
    def build(
        cls,
        neighbors: Int[np.ndarray, "n_spins n_neighbors"],
        exchange: Float[np.ndarray, "n_spins n_neighbors"],
        signs: Float[np.ndarray, " n_spins"],
        lengths: Float[np.ndarray, " n_spins"],
        *,
        constant: float = 0.0,
    ) -> "SpinNetwork":
        """Color the spins and sort them.

        Args:
            neighbors: Neighbours of each spin, filled up with the spin itself.
            exchange: J' of each, in eV.
            signs: Reference order.
            lengths: Lengths of the moments, in μB.
            constant: Energy that no direction changes, in eV per spin.
        """
        colors = color_greedily(neighbors)
        order = np.argsort(colors, kind="stable")
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        bounds = [0, *np.cumsum(np.bincount(colors)).tolist()]
        return cls(
            position[neighbors[order]], exchange[order], signs[order], lengths[order], bounds, constant
        )

    def __len__(self) -> int:
        return len(self.signs)

    @property
    def ordered_energy(self) -> float:
        """Energy of the reference order, in eV per spin."""
        products = self.signs[:, None] * self.signs[self.neighbors]
        return float(-0.5 * (self.exchange * products).sum() / len(self)) + self.constant


def color_greedily(neighbors: Int[np.ndarray, "n n_neighbors"]) -> Int[np.ndarray, " n"]:
    """Numbers such that no two neighbours have the same.

    Args:
        neighbors: Neighbours of each node; a node may be listed as its own.

    Returns:
        Color of each node: the lowest that no earlier neighbour has.
    """
    colors = np.full(len(neighbors), -1)
    for i, row in enumerate(neighbors):
        taken = np.zeros(len(row) + 2, dtype=bool)
        taken[np.minimum(colors[row], len(row))] = True  # the last place is that of spins without a color
        colors[i] = np.argmin(taken[:-1])
    return colors


def _merged(
    ends: Int[np.ndarray, "n_pairs 3"], exchange: Float[np.ndarray, " n_pairs"]
) -> tuple[Int[np.ndarray, "3 n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Different rows, sorted, as columns; the first pair of each; and the sum of exchange over equal ones."""
    rows, kept, which = np.unique(ends, axis=0, return_index=True, return_inverse=True)
    return rows.T, kept, np.bincount(which.ravel(), weights=exchange, minlength=len(rows))

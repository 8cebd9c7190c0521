"""Exchange from total energies: four states of a pair, and spin spirals. Structures out, energies in, tensors out."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import lcm

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float, Int

from mmace_sim.properties.exchange.hessian import transverse_frame
from mmace_sim.structures.lattice_points import (
    cell_numbers,
    cell_points,
    hermite_normal_forms,
    superlattice_waves,
)
from mmace_sim.structures.spin_lattice import Pairs, SpinLattice

_SIGNS = ((1, 1), (-1, -1), (1, -1), (-1, 1))


@dataclass(frozen=True)
class FourStates:
    """States of the four-state method.

    Attributes:
        structures: Supercells, four for each entry of `labels`.
        labels: Pair, and the two directions that its moments are tilted to.
        angle: Angle of the tilt, in rad.
    """

    structures: list[Atoms]
    labels: list[tuple[int, np.ndarray, np.ndarray]]
    angle: float

    def tensors(
        self, energies: Float[np.ndarray, " n_states"], n_pairs: int, *, spin_orbit: bool
    ) -> Float[np.ndarray, "n_pairs 3 3"]:
        """J'_αβ = −[E(++) + E(−−) − E(+−) − E(−+)] / (4 sin²θ).

        Args:
            energies: Energy of each structure, in eV.
            n_pairs: Number of pairs.
            spin_orbit: Whether moments know the lattice; if not, tensors are multiples of the unit matrix.

        Returns:
            Tensors in eV; NaN for pairs without states.
        """
        values = -(energies.reshape(-1, 4) @ [1, 1, -1, -1]) / (4 * np.sin(self.angle) ** 2)
        total, count = np.zeros((n_pairs, 3, 3)), np.zeros((n_pairs, 3, 3))
        for value, (pair, one, two) in zip(values, self.labels, strict=True):
            place = np.outer(one, two) if spin_orbit else np.eye(3)
            total[pair] += value * place
            count[pair] += np.abs(place) > 0.5 if spin_orbit else 1.0
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def four_states(
    lattice: SpinLattice,
    pairs: Pairs,
    matrix: Int[np.ndarray, "3 3"],
    *,
    angle: float,
    axes: Float[np.ndarray, "n_axes 3"],
    spin_orbit: bool,
) -> FourStates:
    """Tilt the moments of one pair of each kind by ±θ, all others at rest.

    The energy of a state has J'_αβ sin²θ with the sign of the two tilts; every other term cancels, whatever θ. With
    θ = 90° this is the method of Xiang et al.; with a small angle it is the numerical second derivative.

    Args:
        lattice: The magnet.
        pairs: Pairs within the cutoff.
        matrix: Diagonal supercell.
        angle: θ in rad.
        axes: Axes that the order is turned to.
        spin_orbit: Whether all components are needed, or one.

    Returns:
        The states.

    References:
        H. Xiang et al., Dalton Trans. 42, 823 (2013), doi:10.1039/C2DT31662E.
    """
    n_cells = int(np.diag(matrix).prod())
    structures, labels = [], []
    for pair, axis in product(pairs.representatives().tolist(), axes):
        rest = np.broadcast_to((lattice.signs[:, None] * axis)[:, None], (len(lattice.sites), n_cells, 3))
        ends = (
            (int(pairs.first[pair]), 0),
            (int(pairs.second[pair]), int(cell_numbers(pairs.shifts[pair][None], matrix)[0])),
        )
        frame = transverse_frame(axis)[:2]
        for tilts in product(frame, frame) if spin_orbit else [(frame[0], frame[0])]:
            labels.append((pair, *tilts))
            for signs in _SIGNS:
                directions = rest.copy()
                for end, tilt, sign in zip(ends, tilts, signs, strict=True):
                    directions[end] = np.cos(angle) * rest[end] + sign * np.sin(angle) * tilt
                structures.append(lattice.supercell(matrix, directions))
    return FourStates(structures, labels, angle)


@dataclass(frozen=True)
class Spirals:
    """Spin spirals on a grid of wave vectors, one of each star.

    Attributes:
        structures: The smallest cell of each spiral, `n_turned` for each row.
        n_cells: Number of primitive cells in each row's structures.
        waves: Wave vector of each row, in reciprocal vectors of the primitive cell.
        turned: Sites that turn in each row; the others stay along the axis.
        weights: Number of wave vectors of the grid that each row stands for.
        angle: Cone angle, in rad.
        n_turned: Copies of each row with other axes, senses and phases, the energies of which are averaged.
    """

    structures: list[Atoms]
    n_cells: Int[np.ndarray, " n_rows"]
    waves: Float[np.ndarray, "n_rows 3"]
    turned: Bool[np.ndarray, "n_rows n_sites"]
    weights: Float[np.ndarray, " n_rows"]
    angle: float
    n_turned: int

    def energies(self, energies: Float[np.ndarray, " n_structures"]) -> Float[np.ndarray, " n_rows"]:
        """Energy of each spiral per primitive cell.

        Args:
            energies: Energy of each structure, in eV.

        Returns:
            Means over axes and senses, in eV.
        """
        return energies.reshape(-1, self.n_turned).mean(axis=1) / self.n_cells

    def fit(
        self, energies: Float[np.ndarray, " n_structures"], lattice: SpinLattice, pairs: Pairs
    ) -> Float[np.ndarray, " n_orbits"]:
        """Isotropic exchange that reproduces E(q) best, over the whole grid.

        Args:
            energies: Energy of each structure, in eV.
            lattice: The magnet.
            pairs: Pairs within the cutoff.

        Returns:
            J' of each set of equivalent pairs, in eV; NaN if the spirals do not determine them.
        """
        design = np.stack([self._sums(lattice, pairs, row) for row in range(len(self.waves))])
        sets = np.unique(self.turned, axis=0)
        constants = (self.turned[:, None] == sets[None]).all(axis=2).astype(float)
        full = np.concatenate([-design, constants], axis=1) * np.sqrt(self.weights)[:, None]
        right = self.energies(energies) * np.sqrt(self.weights)
        mean = right @ np.sqrt(self.weights) / self.weights.sum()
        solution, _, rank, _ = np.linalg.lstsq(
            full, right - mean * np.sqrt(self.weights), rcond=1e-9 * np.sin(self.angle) ** 2
        )
        known = solution[: pairs.n_orbits]
        return known if rank == full.shape[1] else np.full_like(known, np.nan)

    def _sums(self, lattice: SpinLattice, pairs: Pairs, row: int) -> Float[np.ndarray, " n_orbits"]:
        """Σ e_i·e_j of each set of pairs, each pair once, per primitive cell."""
        sine = np.where(self.turned[row], np.sin(self.angle), 0.0)
        cosine = np.where(self.turned[row], np.cos(self.angle), 1.0)
        phases = 2 * np.pi * pairs.vectors @ np.linalg.inv(lattice.cell) @ self.waves[row]
        a, b = pairs.first, pairs.second
        products = cosine[a] * cosine[b] + sine[a] * sine[b] * np.cos(phases)
        weights = 0.5 * lattice.signs[a] * lattice.signs[b] * products
        return np.bincount(pairs.orbits, weights=weights, minlength=pairs.n_orbits)


def spin_spirals(
    lattice: SpinLattice,
    matrix: Int[np.ndarray, "3 3"],
    *,
    angle: float,
    axes: Float[np.ndarray, "n_axes 3"],
    spin_orbit: bool,
) -> Spirals:
    """Conical spirals e = s (sin θ cos q·r, sin θ sin q·r, cos θ) for all wave vectors that fit into a supercell.

    Each is computed in its own smallest cell. With several sites, spirals of one site alone tell their exchange apart.
    With spin–orbit coupling both senses around x, y and z are averaged, each turned by quarters: that leaves the
    isotropic part.

    Args:
        lattice: The magnet.
        matrix: Diagonal supercell.
        angle: Cone angle θ, in rad.
        axes: Axes of the spirals.
        spin_orbit: Whether q and −q differ.

    Returns:
        The spirals.
    """
    stars = _stars(superlattice_waves(matrix), lattice.fractional)
    n_sites = len(lattice.sites)
    subsets = [np.ones(n_sites, dtype=bool)]
    if n_sites > 1:
        subsets += list(np.eye(n_sites, dtype=bool))
    variants = list(product((1, -1), 0.5 * np.pi * np.arange(4))) if spin_orbit else [(1, 0.0)]
    structures, sizes, waves, turned, weights = [], [], [], [], []
    for (wave, weight), subset in product(stars, subsets):
        cell = _smallest_cell(wave)
        for axis, (sense, phase) in product(axes, variants):
            directions = _spiral(lattice, cell, sense * wave, subset, axis, (angle, phase))
            structures.append(lattice.supercell(cell, directions))
        sizes.append(len(cell_points(cell)))
        waves.append(wave)
        turned.append(subset)
        weights.append(float(weight))
    n_turned = len(axes) * len(variants)
    return Spirals(
        structures, np.array(sizes), np.array(waves), np.array(turned), np.array(weights), angle, n_turned
    )


def _spiral(
    lattice: SpinLattice,
    cell: Int[np.ndarray, "3 3"],
    wave: Float[np.ndarray, "3"],
    turned: Bool[np.ndarray, " n_sites"],
    axis: Float[np.ndarray, "3"],
    angles: tuple[float, float],
) -> Float[np.ndarray, "n_sites n_cells 3"]:
    """Unit vectors of a spiral with a cone angle and a phase."""
    angle, phase = angles
    u, v, _ = transverse_frame(axis)
    scaled = lattice.atoms.positions[lattice.sites] @ np.linalg.inv(lattice.cell)
    phases = 2 * np.pi * (scaled[:, None] + cell_points(cell)[None]) @ wave + phase
    cone = np.cos(phases)[..., None] * u + np.sin(phases)[..., None] * v
    theta = np.where(turned, angle, 0.0)[:, None, None]
    return lattice.signs[:, None, None] * (np.cos(theta) * axis + np.sin(theta) * cone)


def _smallest_cell(wave: Float[np.ndarray, "3"]) -> Int[np.ndarray, "3 3"]:
    """The smallest supercell that a rational wave vector fits into, as a Hermite normal form."""
    order = lcm(*(Fraction(float(x)).limit_denominator(1000).denominator for x in wave))
    return next(
        form for form in hermite_normal_forms(order) if np.abs((x := form @ wave) - np.rint(x)).max() < 1e-6
    )


def _stars(
    waves: Float[np.ndarray, "n 3"], operations: Int[np.ndarray, "n_ops 3 3"]
) -> list[tuple[Float[np.ndarray, "3"], int]]:
    """One wave vector of each star, inversion included, and how many the star has."""
    reciprocal = np.linalg.inv(operations).transpose(0, 2, 1)
    seen: set[tuple[float, ...]] = set()
    stars = []
    for wave in waves:
        images = reciprocal @ wave
        both = np.round(np.concatenate([images, -images]) % 1.0, 6) % 1.0
        star = set(map(tuple, both.tolist()))
        if not star & seen:
            stars.append((wave - np.rint(wave - 1e-9), len(star)))
        seen |= star
    return stars

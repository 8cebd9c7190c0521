"""What holds atoms apart where the data end: a repulsion of known form, and a network that is blind below.

A network knows no distance that its data lack, and may be arbitrarily deep there. So below the shortest distance of
each pair of elements (the onset) it sees a distance that soon stays constant, and a screened Coulomb repulsion is
switched on. A wall rises where atoms are more crowded than in the data, and the network's energy of an atom has a floor
below and a ceiling above that of the data. Elsewhere nothing changes.
"""

from collections.abc import Sequence

import torch
from ase.data import covalent_radii
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.nn.ops import Float64Module

COULOMB: float = 14.3996
"""e²/(4π ε₀), in eV Å."""
BOHR: float = 0.529
"""Bohr radius, in Å."""
SCREENING_FACTORS: tuple[float, ...] = (0.1818, 0.5099, 0.2802, 0.02817)
SCREENING_EXPONENTS: tuple[float, ...] = (3.2, 0.9423, 0.4028, 0.2016)
"""The universal screening function is a sum of such exponentials."""
SWITCH_SHARE: float = 0.4
"""The repulsion is switched on over this part of the onset, so slowly because the universal function, right below 1 Å,
is several times too strong at the distances of bonds."""
BLIND_SHARE: float = 0.05
"""The distance that the network sees comes to rest over this part of the onset, at half of it below the onset."""
CROWD_EV: float = 300.0
"""Strength of the wall against crowds: 0.3 eV where an atom is crowded 10 % more than allowed, 2.4 eV at 20 %."""
NO_CROWD: float = 1e12
"""Largest crowding, in Å³, of an element that may be crowded at will."""
FLOOR_WIDTH: float = 0.2
"""Over how much energies of the network come to rest below their floor or above their ceiling, in eV."""
NO_LIMIT: float = 1e12
"""Ceiling and, negative, floor, in eV, of an element whose energies are not limited."""


def zbl_energy(
    lengths: Float[Tensor, "..."],
    charges: Float[Tensor, "2 ..."],
    exponent: float | Tensor = 0.23,
    prefactor: float | Tensor = 0.8854,
    factors: Sequence[float] | Tensor = SCREENING_FACTORS,
) -> Float[Tensor, "..."]:
    """Coulomb energy of two nuclei times the universal screening function, in eV.

    Args:
        lengths: Distances, in Å.
        charges: Atomic numbers of both atoms.
        exponent: Power of the atomic numbers in the screening length.
        prefactor: Screening length over the Bohr radius, times the sum of these powers.
        factors: Factors of the exponentials.

    References:
        Ziegler and Biersack, The Stopping and Range of Ions in Matter, doi:10.1007/978-1-4615-8103-1_3.
    """
    screened = lengths * (charges**exponent).sum(dim=0) / (prefactor * BOHR)
    screening = sum(c * torch.exp(-k * screened) for c, k in zip(factors, SCREENING_EXPONENTS, strict=True))
    return COULOMB * charges.prod(dim=0) / lengths * screening


def smooth_step(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """0 below zero, 1 above one, with two continuous derivatives: 10 x³ − 15 x⁴ + 6 x⁵ between.

    Args:
        x: Argument.
    """
    x = x.clamp(0.0, 1.0)
    return x**3 * (10.0 + x * (6.0 * x - 15.0))


def smooth_floor(
    x: Float[Tensor, "..."], floor: Float[Tensor, "..."], width: Float[Tensor, "..."] | float
) -> Float[Tensor, "..."]:
    """X above `floor`, `floor` − `width`/2 below `floor` − `width`, with three continuous derivatives.

    The slope between is 1 − smooth_step.

    Args:
        x: Values.
        floor: Where they begin to change.
        width: Over how much they come to rest.
    """
    u = ((floor - x) / width).clamp(0.0, 1.0)
    below = floor - width * u * (1.0 - u**3 * (2.5 + u * (u - 3.0)))
    return torch.where(x >= floor, x, below)


class ShortRange(Float64Module):
    """What holds atoms apart: pair repulsion, a wall against crowds, blindness and a floor for the network.

    E_rep = ½ Σ_ij V_ZBL(r_ij) s((r_on − r_ij)/(0.4 r_on)) with the smooth step s. The network sees `smooth_floor` of
    r_ij, no less than 0.975 r_on. An atom is crowded by c_i = Σ_j R_j³ (1 − r_ij²/r_max²)³ with covalent radii R; above
    the largest crowding allowed to its element it costs 300 eV (c/c_max − 1)³. Everything is two times
    continuously differentiable, and exactly nothing where the data are.

    Args:
        r_max: Cutoff radius, in Å.
        atomic_numbers: Elements of the model.
        onsets: Distance r_on of each pair of these elements, in Å, in the order of the model.
        max_crowding: Of each element, in Å³.
        limits: Floor and ceiling of each element, in eV.

    References:
        Ziegler and Biersack, see `zbl_energy`; Witt et al., J. Chem. Phys. 159, 164101 (2023),
        doi:10.1063/5.0158783, for a core repulsion below the distances of the data.
    """

    onsets: Tensor
    charges: Tensor
    volumes: Tensor
    max_crowding: Tensor
    limits: Tensor

    def __init__(
        self,
        r_max: float,
        atomic_numbers: Sequence[int],
        onsets: Sequence[Sequence[float]],
        max_crowding: Sequence[float],
        limits: Sequence[tuple[float, float]],
    ) -> None:
        super().__init__()
        self.r_max = r_max
        self.largest_onset = max(max(row) for row in onsets)
        self._has_walls = min(max_crowding) < NO_CROWD
        self.register_buffer("onsets", torch.tensor(onsets, dtype=torch.float64), persistent=False)
        self.register_buffer("charges", torch.tensor(atomic_numbers, dtype=torch.float64), persistent=False)
        volumes = torch.as_tensor(covalent_radii[list(atomic_numbers)] ** 3, dtype=torch.float64)
        self.register_buffer("volumes", volumes, persistent=False)
        crowding = torch.tensor(max_crowding, dtype=torch.float64)
        self.register_buffer("max_crowding", crowding, persistent=False)
        self.register_buffer("limits", torch.tensor(limits, dtype=torch.float64), persistent=False)

    def seen(
        self,
        vectors: Float[Tensor, "n_edges 3"],
        edge_index: Int[Tensor, "2 n_edges"],
        species: Int[Tensor, " n_atoms"],
        close: Int[Tensor, " n_close"] | None = None,
    ) -> Float[Tensor, "n_edges 3"]:
        """Pair vectors as the network sees them, in Å.

        Args:
            vectors: Pair vectors, in Å.
            edge_index: Both atoms of each pair, the centre last.
            species: Index of each atom's element.
            close: Numbers of pairs that may be below their onsets, from `close_pairs`; found here if not given.
        """
        close = self._below(vectors, edge_index, species) if close is None else close
        if not len(close):
            return vectors
        onsets = self._onsets(edge_index, species, close).to(vectors.dtype)
        near = vectors[close]
        lengths = torch.linalg.norm(near, dim=1)
        ratios = smooth_floor(lengths, onsets, BLIND_SHARE * onsets) / lengths
        changed = torch.where((lengths < onsets)[:, None], near * ratios[:, None], near)
        return vectors.index_copy(0, close, changed)

    def energies(
        self,
        vectors: Float[Tensor, "n_edges 3"],
        edge_index: Int[Tensor, "2 n_edges"],
        species: Int[Tensor, " n_atoms"],
        close: Int[Tensor, " n_close"] | None = None,
    ) -> Float[Tensor, " n_atoms"]:
        """Half of the repulsion of the pairs of each atom, and its wall against crowds, in eV and float64.

        Args:
            vectors: Pair vectors, in Å.
            edge_index: Both atoms of each pair, the centre last.
            species: Index of each atom's element.
            close: As for `seen`.
        """
        close = self._below(vectors, edge_index, species) if close is None else close
        total = vectors.new_zeros(len(species), dtype=torch.float64)
        if len(close):
            onsets, charges = self._onsets(edge_index, species, close), self.charges[species]
            lengths = torch.linalg.norm(vectors[close].double(), dim=1)
            switch = smooth_step((onsets - lengths) / (SWITCH_SHARE * onsets))
            energies = 0.5 * switch * zbl_energy(lengths, charges[edge_index[:, close]])
            total = total.index_add(0, edge_index[1][close], energies)
        if not self._has_walls:
            return total
        excess = self.crowding(vectors, edge_index, species) / self.max_crowding[species] - 1.0
        return total + CROWD_EV * torch.relu(excess) ** 3

    def crowding(
        self,
        vectors: Float[Tensor, "n_edges 3"],
        edge_index: Int[Tensor, "2 n_edges"],
        species: Int[Tensor, " n_atoms"],
    ) -> Float[Tensor, " n_atoms"]:
        """How much volume of other atoms is around each one, weighted by a smooth function, in Å³.

        Args:
            vectors: Pair vectors, in Å.
            edge_index: Both atoms of each pair, the centre last.
            species: Index of each atom's element.
        """
        squares = (vectors.double() ** 2).sum(dim=1) / self.r_max**2
        weights = self.volumes[species[edge_index[0]]] * torch.relu(1.0 - squares) ** 3
        return weights.new_zeros(len(species)).index_add(0, edge_index[1], weights)

    def _below(
        self,
        vectors: Float[Tensor, "n_edges 3"],
        edge_index: Int[Tensor, "2 n_edges"],
        species: Int[Tensor, " n_atoms"],
    ) -> Int[Tensor, " n_close"]:
        return self.close_pairs(torch.linalg.norm(vectors.detach(), dim=1), edge_index, species)

    @torch.no_grad()
    def close_pairs(
        self,
        lengths: Float[Tensor, " n_edges"],
        edge_index: Int[Tensor, "2 n_edges"],
        species: Int[Tensor, " n_atoms"],
        margin: float = 0.0,
    ) -> Int[Tensor, " n_close"]:
        """Numbers of the pairs below their onsets.

        Args:
            lengths: Distances, in Å.
            edge_index: Both atoms of each pair, the centre last.
            species: Index of each atom's element.
            margin: Pairs above their onsets by less than this, in Å, count too.
        """
        first, second = species[edge_index]
        return torch.nonzero(lengths < self.onsets[first, second] + margin).flatten()

    def _onsets(
        self,
        edge_index: Int[Tensor, "2 n_edges"],
        species: Int[Tensor, " n_atoms"],
        close: Int[Tensor, " n_close"],
    ) -> Float[Tensor, " n_close"]:
        """Onsets of some pairs, in Å."""
        first, second = species[edge_index[:, close]]
        return self.onsets[first, second]

    def limited(
        self, energies: Float[Tensor, " n_atoms"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """Energies that the network gives atoms, none far outside of what the data know, in eV.

        Args:
            energies: Of each atom, in eV and float64.
            species: Index of its element.
        """
        floor, ceiling = self.limits[species].unbind(-1)
        return -smooth_floor(-smooth_floor(energies, floor, FLOOR_WIDTH), -ceiling, FLOOR_WIDTH)

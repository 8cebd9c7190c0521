"""What holds atoms apart where the data end: a repulsion of known form, and a network that is blind below.

A network knows no distance that its data lack, and may be arbitrarily deep there. So below the shortest distance of
each pair of elements (the onset) it sees a distance that soon stays constant, a screened Coulomb repulsion is switched
on, and the network's energy of an atom has a floor. Above the onset, and above the floor, nothing changes.
"""

from collections.abc import Sequence

import torch
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
SWITCH_SHARE: float = 0.75
"""The repulsion is switched on over this part of the onset, so slowly because the universal function, right below 1 Å,
is several times too strong at the distances of bonds."""
BLIND_SHARE: float = 0.2
"""The distance that the network sees comes to rest over this part of the onset, at half of it below the onset."""
FLOOR_WIDTH: float = 1.0
"""Over how much energies of the network come to rest below their floor, in eV."""
NO_FLOOR: float = -1e12
"""Floor, in eV, of an element whose energies are not limited."""


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
    """Repulsion of each pair of elements below its onset, what the network sees there, and the floor of its energy.

    E_rep = ½ Σ_ij V_ZBL(r_ij) s((r_on − r_ij)/(0.75 r_on)) with the smooth step s. The network sees `smooth_floor` of
    r_ij, no less than 0.9 r_on. Everything is two times continuously differentiable and exactly nothing above the
    onset.

    Args:
        atomic_numbers: Elements of the model.
        onsets: Distance of each pair of these elements, in Å, in the order of the model.
        floors: Of each element, in eV.

    References:
        Ziegler and Biersack, see `zbl_energy`; Witt et al., J. Chem. Phys. 159, 164101 (2023),
        doi:10.1063/5.0158783, for a core repulsion below the distances of the data.
    """

    def __init__(self, atomic_numbers: list[int], onsets: list[list[float]], floors: list[float]) -> None:
        super().__init__()
        self.register_buffer("onsets", torch.tensor(onsets, dtype=torch.float64), persistent=False)
        self.register_buffer("charges", torch.tensor(atomic_numbers, dtype=torch.float64), persistent=False)
        self.register_buffer("floors", torch.tensor(floors, dtype=torch.float64), persistent=False)

    def seen(
        self, vectors: Float[Tensor, "n_edges 3"], pairs: Int[Tensor, "2 n_edges"]
    ) -> Float[Tensor, "n_edges 3"]:
        """Pair vectors as the network sees them, in Å.

        Args:
            vectors: Pair vectors, in Å.
            pairs: Index of both atoms' elements.
        """
        close, onsets = self._close(vectors, pairs)
        if not len(close):
            return vectors
        lengths, onsets = torch.linalg.norm(vectors[close], dim=1), onsets.to(vectors.dtype)
        ratios = smooth_floor(lengths, onsets, BLIND_SHARE * onsets) / lengths
        return vectors.index_copy(0, close, vectors[close] * ratios[:, None])

    def energies(
        self,
        vectors: Float[Tensor, "n_edges 3"],
        pairs: Int[Tensor, "2 n_edges"],
        receiver: Int[Tensor, " n_edges"],
        n_atoms: int,
    ) -> Float[Tensor, " n_atoms"]:
        """Half of the repulsion of the pairs of each atom, in eV and float64.

        Args:
            vectors: Pair vectors, in Å.
            pairs: Index of both atoms' elements.
            receiver: Centre of each pair.
            n_atoms: Number of atoms.
        """
        close, onsets = self._close(vectors, pairs)
        lengths = torch.linalg.norm(vectors[close].double(), dim=1)
        switch = smooth_step((onsets - lengths) / (SWITCH_SHARE * onsets))
        energies = 0.5 * switch * zbl_energy(lengths, self.charges[pairs[:, close]])
        return energies.new_zeros(n_atoms).index_add(0, receiver[close], energies)

    @torch.no_grad()
    def _close(
        self, vectors: Float[Tensor, "n_edges 3"], pairs: Int[Tensor, "2 n_edges"]
    ) -> tuple[Int[Tensor, " n_close"], Float[Tensor, " n_close"]]:
        """Numbers of the pairs below their onsets, and these onsets."""
        onsets = self.onsets[pairs[0], pairs[1]]
        close = torch.nonzero(torch.linalg.norm(vectors, dim=1) < onsets).flatten()
        return close, onsets[close]

    def limited(
        self, energies: Float[Tensor, " n_atoms"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """Energies that the network gives atoms, none far below what the data know, in eV.

        Args:
            energies: Of each atom, in eV and float64.
            species: Index of its element.
        """
        return smooth_floor(energies, self.floors[species], FLOOR_WIDTH)

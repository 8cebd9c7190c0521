"""Antiferromagnetic and ferrimagnetic arrangements of moments, from rules on which pairs of them are antiparallel."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int

from mmace_sim.graph.neighbors import near_pairs
from mmace_sim.graph.spglib_call import call_spglib
from mmace_sim.structures.ions import bonds, d_electrons, oxidation_states
from mmace_sim.structures.moment_table import is_compound

STRONG_MOMENT: float = 1.0
"""Elements starting at this or above (μB) carry the order; weaker ones follow and start at zero in an AFM start."""

EXACT_SITES: int = 14
"""Largest number of moments for which all arrangements are tried."""
MAX_PATTERN_SITES: int = 10
"""Largest number of moments in a primitive cell for which all arrangements with one period are tried."""

MAX_PERIOD: int = 16
"""Largest number of primitive cells along an edge of the cell whose periods are found."""
MAX_EQUALS: int = 1000
"""Largest number of arrangements of the same energy and total moment that are compared."""

DIRECT: float = 2.5
"""Distance, in Å, at which direct exchange of two half-filled t₂g shells is as strong as superexchange at 180°."""
DECAY: int = 8
"""Power of the distance with which direct exchange falls."""
_WEAK_BRIDGE = 0.25
"""Amplitude of an ion without e_g electrons in superexchange, whose orbitals do not point at the anions."""
_WEAK_DIRECT = 0.3
"""Amplitude of any other ion in direct exchange across a shared edge or face."""
_T2G_ONLY = 3.5
_SYMPRECS = (0.05, 0.15, 0.4)
"""Tolerances of the lattice of a distorted crystal, in Å: patterns are only candidates."""


@dataclass
class Couplings:
    """How strongly pairs of moments want to be antiparallel; periodic images count as pairs of their own.

    Attributes:
        first: Number of a site.
        second: Number of the other; may be the same site, in another cell.
        weights: Strength, positive.
    """

    first: Int[np.ndarray, " n_pairs"]
    second: Int[np.ndarray, " n_pairs"]
    weights: Float[np.ndarray, " n_pairs"]

    def matrix(self, n: int) -> Float[np.ndarray, "n n"]:
        """Sum over images of each pair of different sites.

        Args:
            n: Number of sites.
        """
        total = np.zeros((n, n))
        np.add.at(total, (self.first, self.second), self.weights)
        np.fill_diagonal(total, 0.0)
        return total

    def frustration(self, signs: Int[np.ndarray, " n"]) -> float:
        """Σ w s s over pairs, each image too: the lower, the better an arrangement of signs.

        Args:
            signs: +1 or −1 for each site.
        """
        return float(np.sum(self.weights * signs[self.first] * signs[self.second]))


def magnetic_sites(lengths: Float[np.ndarray, " n_atoms"]) -> Int[np.ndarray, " n_sites"]:
    """Indices of the atoms that carry the order: those of `STRONG_MOMENT` or more, else all with a moment.

    Args:
        lengths: Starting moment of each atom, in μB.
    """
    threshold = STRONG_MOMENT if (lengths >= STRONG_MOMENT).any() else 1e-9
    return np.flatnonzero(lengths >= threshold)


def antiferromagnetic_signs(
    atoms: Atoms, sites: Int[np.ndarray, " n_sites"], lengths: Float[np.ndarray, " n_atoms"]
) -> Int[np.ndarray, " n_sites"]:
    """Signs of moments such that Σ w_ij m_i m_j s_i s_j is smallest, the first up.

    Among equals the one with the smallest total moment is taken, and then the one with one period, s(r + t) = ±s(r)
    for as many translations t of the crystal as possible (NiO: one of its [111] domains, no mixture of them).

    Args:
        atoms: Structure.
        sites: Atoms that carry the order, at least one.
        lengths: Starting moment of each atom, in μB.
    """
    moments = lengths[sites]
    weights = couplings(atoms, sites).matrix(len(sites)) * np.outer(moments, moments) / moments.max() ** 2
    translations = _translations(atoms, sites)
    free = _all_colourings(len(sites)) if len(sites) <= EXACT_SITES else _colourings(weights)
    candidates = np.concatenate([_patterns(translations), free])
    return _best(candidates, weights, moments, translations.maps)


def couplings(atoms: Atoms, sites: Int[np.ndarray, " n_sites"]) -> Couplings:
    """Which pairs of moments want to be antiparallel, and how strongly.

    In compounds (see `is_compound`) superexchange, Σ cos²θ over the anions that bridge a pair at the angle θ, weaker
    for ions without e_g electrons (d³ and fewer), and direct exchange across shared edges and faces, stronger between
    those: the rules of Goodenough and Kanamori. Elsewhere, and where nothing is bridged, near neighbours: (d_min/d)⁸.

    Args:
        atoms: Structure.
        sites: Atoms that carry the order.

    References:
        J. B. Goodenough, Phys. Rev. 100, 564 (1955); J. Kanamori, J. Phys. Chem. Solids 10, 87 (1959).
    """
    if is_compound(atoms):
        bridged = _superexchange(atoms, sites)
        if len(np.unique(bridged.first)) == len(sites):
            return bridged
    return _near_neighbours(atoms[sites])


def _near_neighbours(magnetic: Atoms) -> Couplings:
    """(d_min/d)⁸ of every pair, so that nearest neighbours dominate."""
    n = len(magnetic)
    cutoff, largest = 4.0, 60.0
    while True:
        i, j, d = near_pairs("ijd", magnetic, cutoff)
        others = i != j
        if len(np.unique(i[others])) == n or (n == 1 and len(d)) or cutoff > largest:
            break
        cutoff *= 1.5
    if not len(d):
        return Couplings(i, j, d)
    nearest = d[others].min() if others.any() else d.min()
    return Couplings(i, j, (nearest / d) ** DECAY)


def _superexchange(atoms: Atoms, sites: Int[np.ndarray, " n_sites"]) -> Couplings:
    """Pairs that anions bridge, and near pairs."""
    position = np.full(len(atoms), -1)
    position[sites] = np.arange(len(sites))
    bridge, direct = _amplitudes(atoms, sites)
    anions, ions, vectors = bonds(atoms, sites)
    first, second, weights = [], [], []
    for anion in np.unique(anions):
        of_it = np.flatnonzero(anions == anion)
        units = vectors[of_it] / np.linalg.norm(vectors[of_it], axis=1, keepdims=True)
        cosines = units @ units.T
        a, b = np.nonzero(~np.eye(len(of_it), dtype=bool) & (cosines < 1.0 - 1e-6))
        own = position[ions[of_it]]
        first.append(own[a])
        second.append(own[b])
        weights.append(bridge[own[a]] * bridge[own[b]] * cosines[a, b] ** 2)
    i, j, d = near_pairs("ijd", atoms[sites], 2.0 * DIRECT)
    first.append(i)
    second.append(j)
    weights.append(direct[i] * direct[j] * (DIRECT / d) ** DECAY)
    return Couplings(np.concatenate(first), np.concatenate(second), np.concatenate(weights))


def _amplitudes(
    atoms: Atoms, sites: Int[np.ndarray, " n_sites"]
) -> tuple[Float[np.ndarray, " n_sites"], Float[np.ndarray, " n_sites"]]:
    """Amplitude of each ion in superexchange and in direct exchange."""
    states = oxidation_states(atoms)
    usual = {22: 3.0, 23: 3.0, 24: 3.0}  # Ti, V, Cr
    bridge, direct = np.ones(len(sites)), np.full(len(sites), _WEAK_DIRECT)
    for k, z in enumerate(atoms.numbers[sites].tolist()):
        d = d_electrons(z, states.get(z, usual.get(z, 2.0)))
        if d is None:  # 4f and 5f orbitals reach nothing
            bridge[k] = _WEAK_BRIDGE
        elif d <= _T2G_ONLY:
            bridge[k], direct[k] = _WEAK_BRIDGE, 1.0
    return bridge, direct


@dataclass
class _Translations:
    """Translations that map a crystal on itself.

    Attributes:
        shifts: The translations, in units of the cell, the identity first; (n_shifts, 3).
        maps: Where each site goes; (n_shifts, n_sites).
    """

    shifts: Float[np.ndarray, "n_shifts 3"]
    maps: Int[np.ndarray, "n_shifts n_sites"]


def _translations(atoms: Atoms, sites: Int[np.ndarray, " n_sites"]) -> _Translations:
    """All translations of a crystal; the identity alone where there is no lattice."""
    shifts, maps = [np.zeros(3)], [np.arange(len(sites))]
    if atoms.pbc.all() and atoms.cell.rank == 3:
        scaled = atoms.get_scaled_positions()[sites]
        for shift in _pure_translations(atoms):
            apart = scaled[:, None] + shift - scaled[None]
            apart -= np.round(apart)
            target = np.linalg.norm(apart @ atoms.cell.array, axis=2).argmin(axis=1)
            if len(np.unique(target)) == len(sites):
                shifts.append(shift)
                maps.append(target)
    return _Translations(np.array(shifts), np.array(maps))


def _pure_translations(atoms: Atoms) -> list[Float[np.ndarray, " 3"]]:
    """Translations shorter than the cell, in units of it; none where spglib finds no symmetry."""
    for symprec in _SYMPRECS:
        found = call_spglib("get_symmetry", atoms, symprec=symprec)
        if found is None:  # arrangements are then looked at one by one
            break
        pure = (found["rotations"] == np.eye(3)).all(axis=(1, 2))
        shifts = [t for t in found["translations"][pure] if not np.allclose(t, np.round(t), atol=1e-3)]
        if shifts:
            return shifts
    return []


def _patterns(translations: _Translations) -> Int[np.ndarray, "n_patterns n_sites"]:
    """All arrangements with s(r + t) = ±s(r) for every translation t, unless a primitive cell holds too many sites."""
    maps = translations.maps
    first = np.sort(maps, axis=0)[0]  # of the sites that translations map on each other
    heads = np.unique(first)
    patterns = [np.zeros((0, maps.shape[1]), dtype=int)]
    if len(heads) <= MAX_PATTERN_SITES and len(maps) > 1:
        for character in _characters(translations.shifts):
            relative = np.ones(maps.shape[1], dtype=int)
            relative[maps[:, heads]] = character[:, None]
            patterns.append(relative * _all_colourings(len(heads))[:, np.searchsorted(heads, first)])
    return np.concatenate(patterns)


def _characters(shifts: Float[np.ndarray, "n_shifts 3"]) -> Int[np.ndarray, "n_characters n_shifts"]:
    """The ways to give each translation a sign so that the sign of a sum is the product of the signs: exp(2πi h·t)."""
    h = np.stack(np.meshgrid(*[np.arange(MAX_PERIOD // 2 + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    halves = 2.0 * h @ shifts.T
    real = (np.abs(halves - np.round(halves)) < 0.05).all(axis=1)
    return np.unique(1 - 2 * (np.round(halves[real]).astype(int) % 2), axis=0)


def _all_colourings(n: int) -> Int[np.ndarray, "n_colourings n"]:
    """All arrangements with the first site up."""
    return 1 - 2 * ((np.arange(2 ** (n - 1))[:, None] << 1 >> np.arange(n)[None, :]) & 1)


def _colourings(weights: Float[np.ndarray, "n n"]) -> Int[np.ndarray, "n_starts n"]:
    """Arrangements that no flip of a single site betters."""
    n, rng = len(weights), np.random.default_rng(0)
    starts = [np.where(np.linalg.eigh(weights)[1][:, 0] >= 0, 1, -1)]
    starts += [rng.choice([-1, 1], size=n) for _ in range(8)]
    return np.array([_improve(weights, start) for start in starts])


def _best(
    candidates: Int[np.ndarray, "n_candidates n"],
    weights: Float[np.ndarray, "n n"],
    moments: Float[np.ndarray, " n"],
    maps: Int[np.ndarray, "n_shifts n"],
) -> Int[np.ndarray, " n"]:
    """The arrangement of lowest energy, then of smallest total moment, then with most translations, the first up."""
    energies = ((candidates @ weights) * candidates).sum(axis=1)
    near_best = candidates[energies <= energies.min() + 1e-6 * max(1e-3, np.abs(energies).max())]
    totals = np.abs(near_best @ moments)
    balanced = near_best[totals <= totals.min() + 1e-6 * moments.max()]
    kept = [int((np.abs(signs[maps] @ signs) == len(signs)).sum()) for signs in balanced[:MAX_EQUALS]]
    best = balanced[int(np.argmax(kept))]
    return best * best[0]


def _improve(weights: Float[np.ndarray, "n n"], signs: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Flip the site that gains most until none gains."""
    signs = signs.copy()
    for _ in range(20 * len(signs)):
        gain = signs * (weights @ signs)
        worst = int(np.argmax(gain))
        if gain[worst] <= 1e-12:
            break
        signs[worst] = -signs[worst]
    return signs

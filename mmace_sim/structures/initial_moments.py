"""Starting moments for structures: from the file, high-spin ferromagnetic, antiferromagnetic, random."""

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import complete_cell
from jaxtyping import Float, Int
from matscipy.neighbours import neighbour_list

from mmace_sim.errors import MissingMomentsError, StructureError
from mmace_sim.graph.atoms import get_magmoms, has_magmoms
from mmace_sim.structures.moment_range import START_SHARE
from mmace_sim.structures.moment_words import parse_initial

_METALS = {"V": 1.0, "Cr": 2.0, "Mn": 3.0, "Fe": 2.5, "Co": 1.7, "Ni": 0.7}
_RARE_EARTHS = {
    "Ce": 1.0, "Pr": 2.0, "Nd": 3.0, "Pm": 4.0, "Sm": 5.0, "Eu": 7.0, "Gd": 7.0,
    "Tb": 6.0, "Dy": 5.0, "Ho": 4.0, "Er": 3.0, "Tm": 2.0, "Yb": 1.0,
}  # fmt: skip
_ACTINIDES = {"U": 2.0, "Np": 3.0, "Pu": 4.0, "Am": 6.0, "Cm": 7.0}
_WEAK = dict.fromkeys(("Ti", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "W", "Re", "Os", "Ir", "Pt"), 0.6)

HIGH_SPIN: dict[str, float] = _WEAK | _METALS | _RARE_EARTHS | _ACTINIDES
"""Starting moment of each element in μB; an element that is not listed starts at zero.

3d metals: slightly above the moment of the magnetic metal (bcc Fe 2.2, hcp Co 1.6, fcc Ni 0.6, α-Mn up to 2.8), so
that a relaxation comes down from the high-spin side. The Materials Project (pymatgen, ``MPRelaxSet.yaml``) starts at
5 for most of them, which suits oxides and is far above any moment of a metal. 4f elements: the spin moment 2S of the
trivalent ion by Hund's rule (Eu: divalent). 4d and 5d metals: 0.6, the default of ``MPRelaxSet``, since their moments
are induced.
"""

STRONG_MOMENT: float = 1.0
"""Elements starting at this or above (μB) carry the order; weaker ones follow and start at zero in an AFM start."""

_EXACT_SITES = 14


def initial_magmoms(
    atoms: Atoms, how: str | None = None, *, largest: Mapping[int, float] | None = None
) -> tuple[Float[np.ndarray, "n_atoms 3"], str]:
    """Moments to start from.

    Args:
        atoms: Structure.
        how: ``"file"`` (must be in the structure), ``"high-spin"`` (ferromagnetic along z, see `HIGH_SPIN`),
            ``"afm"`` (signs alternating as far as the lattice allows), ``"random:SEED"`` (high-spin lengths, random
            directions) or None: from the structure if it has moments, else high-spin.
        largest: Largest moment of each element that the model was made for, in μB: moments that are not of the
            structure stay below 0.9 of it.

    Returns:
        Moments in μB, and a sentence for the log if they do not come from the structure, else "".

    Raises:
        MissingMomentsError: If they must come from the structure and it has none.
        StructureError: If an antiferromagnetic start is impossible.
        ConfigError: If `how` is none of the choices.
    """
    kind, seed = parse_initial(how)
    if kind == "file" and not has_magmoms(atoms):
        raise MissingMomentsError(
            "the structure carries no magnetic moments. Add them to the file (array initial_magmoms in extxyz, "
            "moments in mCIF), or start from --initial-magmoms high-spin, afm or random:SEED."
        )
    if kind == "file" or (kind is None and has_magmoms(atoms)):
        return get_magmoms(atoms), ""
    lengths = high_spin_lengths(atoms, largest)
    moments = np.zeros((len(atoms), 3))
    if kind == "random":
        directions = np.random.default_rng(seed).normal(size=(len(atoms), 3))
        moments = lengths[:, None] * directions / np.linalg.norm(directions, axis=1)[:, None]
        return (
            moments,
            f"moments initialised with random directions (seed {seed}, {_describe(atoms, lengths)})",
        )
    if kind == "afm":
        moments[:, 2] = _alternate(atoms, lengths)
        return moments, f"moments initialised antiferromagnetically along z ({_describe(atoms, lengths)})"
    moments[:, 2] = lengths
    reason = "no moments in the file, " if kind is None else ""
    return (
        moments,
        f"{reason}moments initialised high-spin ferromagnetic along z ({_describe(atoms, lengths)})",
    )


def high_spin_lengths(
    atoms: Atoms, largest: Mapping[int, float] | None = None
) -> Float[np.ndarray, " n_atoms"]:
    """Starting length of each moment, from `HIGH_SPIN`, within the range of a model.

    Args:
        atoms: Structure.
        largest: Largest moment of each element that the model was made for, in μB.

    Returns:
        Lengths in μB.
    """
    usual = np.array([HIGH_SPIN.get(symbol, 0.0) for symbol in atoms.get_chemical_symbols()])
    limits = np.array([START_SHARE * (largest or {}).get(z, np.inf) for z in atoms.numbers.tolist()])
    return np.minimum(usual, limits)


def _describe(atoms: Atoms, lengths: Float[np.ndarray, " n_atoms"]) -> str:
    """Starting lengths in words: 'Fe 2.5 μB, Al 0 μB'."""
    of_element = dict(zip(atoms.numbers.tolist(), lengths.tolist(), strict=True))
    return ", ".join(f"{chemical_symbols[z]} {length:.3g} μB" for z, length in of_element.items())


def _alternate(atoms: Atoms, lengths: Float[np.ndarray, " n_atoms"]) -> Float[np.ndarray, " n_atoms"]:
    """Lengths with signs such that near neighbours are opposite as far as possible."""
    threshold = STRONG_MOMENT if (lengths >= STRONG_MOMENT).any() else 1e-9
    sites = np.flatnonzero(lengths >= threshold)
    if len(sites) < 2:
        symbols = "no magnetic atom" if len(sites) == 0 else f"one magnetic atom ({atoms.symbols[sites[0]]})"
        raise StructureError(
            f"an antiferromagnetic start needs at least two magnetic atoms, this cell has {symbols}. "
            "Build a supercell (ase.build.make_supercell), or use --initial-magmoms high-spin."
        )
    magnetic = atoms[sites]
    signs = two_colouring(_coupling(magnetic))
    values = np.zeros(len(atoms))
    values[sites] = signs * lengths[sites]
    return values


def _coupling(magnetic: Atoms) -> Float[np.ndarray, "n n"]:
    """Weight of each pair of sites, Σ (d_min/d)⁸ over periodic images, so that nearest neighbours dominate."""
    n = len(magnetic)
    cell = complete_cell(magnetic.cell.array) if magnetic.pbc.any() else None
    cutoff = 4.0
    while True:
        i, j, distances = neighbour_list(
            "ijd", positions=magnetic.positions, cell=cell, pbc=magnetic.pbc, cutoff=cutoff
        )
        others = i != j
        if len(np.unique(i[others])) == n:
            break
        cutoff *= 1.5
    weights = np.zeros((n, n))
    np.add.at(weights, (i[others], j[others]), (distances[others].min() / distances[others]) ** 8)
    return weights


def two_colouring(weights: Float[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """Signs s that minimise Σ_ij w_ij s_i s_j (the maximum cut), balanced among equals, the first site up.

    Up to 14 sites all colourings are tried; beyond, a spectral start and several greedy ones are improved by flipping
    single sites until none helps.

    Args:
        weights: Symmetric non-negative coupling of each pair.

    Returns:
        +1 or −1 for each site.
    """
    n = len(weights)
    if n <= _EXACT_SITES:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n)[None, :] & 1
        candidates = 1 - 2 * bits
    else:
        rng = np.random.default_rng(0)
        starts = [np.where(np.linalg.eigh(weights)[1][:, 0] >= 0, 1, -1)]
        starts += [rng.choice([-1, 1], size=n) for _ in range(8)]
        candidates = np.array([_improve(weights, start) for start in starts])
    energies = np.einsum("ci,ij,cj->c", candidates, weights, candidates)
    near_best = energies <= energies.min() + 1e-9 * max(1.0, np.abs(energies).max())
    balance = np.where(near_best, np.abs(candidates.sum(axis=1)), n + 1)
    best = candidates[int(np.argmin(balance))]
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

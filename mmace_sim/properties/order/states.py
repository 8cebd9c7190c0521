"""Which relaxed magnetic states are the same: a fingerprint that knows neither cell, order of atoms nor spin axes."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from jaxtyping import Float
from matscipy.neighbours import neighbour_list

from mmace_sim.structures.magnetic_order import INDUCED_TOL, MOMENT_TOL

FINGERPRINT_RADIUS: float = 6.0
"""Pairs up to this distance are looked at, in Å."""

SAME_TOL: float = 0.1
"""Fingerprints closer than this belong to one state."""

DIRECTION_TOL: float = 0.1
"""An order is kept if no scalar product of two directions changes by more than this (25° off parallel)."""

_SMALL = 0.5  # μB, so that moments on their way to zero do not count as an order
_WIDTH = 0.35  # Å
_GRID = np.arange(1.0, FINGERPRINT_RADIUS, 0.25)


def state_fingerprint(
    atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"]
) -> Float[np.ndarray, " n_features"]:
    """Numbers that are alike for alike magnetic states.

    The density of pairs ρ(r) and of scalar products of moments, Σ_ij m_i·m_j δ(r − r_ij)/N, for each pair of elements,
    smeared by a Gaussian and weighted with 1/r²; mean, mean square and range of the lengths of each element; and the
    eigenvalues of Σ_i m_i ⊗ m_i, which tell collinear, coplanar and spatial orders apart. None of these changes under
    rotation, reflection or reversal of all moments, permutation of atoms, or choice of the cell.

    Args:
        atoms: Structure; only elements, positions and cell are used.
        magmoms: Moments, in μB.

    Returns:
        Features, of which differences are relative to the longest moment and to the nearest shell.
    """
    lengths = np.linalg.norm(magmoms, axis=1)
    spins = magmoms / max(float(lengths.max(initial=0.0)), _SMALL)
    cell, cutoff = complete_cell(atoms.cell), FINGERPRINT_RADIUS + 3 * _WIDTH
    i, j, distances = neighbour_list(
        "ijd", positions=atoms.positions, cell=cell, pbc=atoms.pbc, cutoff=cutoff
    )
    smear = np.exp(-0.5 * ((distances[:, None] - _GRID) / _WIDTH) ** 2) / distances[:, None] ** 2
    products = (spins[i] * spins[j]).sum(axis=1)
    features = []
    elements = np.unique(atoms.numbers)
    for a in elements:
        for b in elements[elements >= a]:
            chosen = (atoms.numbers[i] == a) & (atoms.numbers[j] == b)
            density = smear[chosen].sum(axis=0) / len(atoms)
            correlation = products[chosen] @ smear[chosen] / len(atoms)
            features += [density, correlation]
        own = lengths[atoms.numbers == a] / 3.0
        features.append(np.array([own.mean(), np.sqrt((own**2).mean()), own.min(), own.max()]))
    features.append(np.linalg.eigvalsh(spins.T @ spins / len(atoms)))
    return np.concatenate(features)


def same_state(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> bool:
    """Whether two fingerprints belong to one magnetic state.

    Args:
        first: From `state_fingerprint`.
        second: Of a structure with the same elements.

    Returns:
        True if they are closer than `SAME_TOL`.
    """
    return len(first) == len(second) and float(np.abs(first - second).max()) < SAME_TOL


def cluster_states(
    energies: Sequence[float], fingerprints: Sequence[Float[np.ndarray, " n"]], *, energy_tol: float
) -> list[int]:
    """Put relaxed structures that are the same state into one group.

    Args:
        energies: In eV/atom.
        fingerprints: From `state_fingerprint`.
        energy_tol: Largest difference within a group, in eV/atom.

    Returns:
        Number of the group of each, 0 for that of the lowest energy.
    """
    groups = [-1] * len(energies)
    leaders: list[int] = []
    for k in np.argsort(energies, kind="stable").tolist():
        for number, leader in enumerate(leaders):
            close = energies[k] - energies[leader] <= energy_tol
            if close and same_state(fingerprints[k], fingerprints[leader]):
                groups[k] = number
                break
        else:
            groups[k] = len(leaders)
            leaders.append(k)
    return groups


def keeps_order(before: Float[np.ndarray, "n_atoms 3"], after: Float[np.ndarray, "n_atoms 3"]) -> bool:
    """Whether the moments that made up an order still stand to each other as they did.

    Args:
        before: Moments at the start, in μB; those that are zero there do not count.
        after: Moments of the same atoms at the end, in μB.

    Returns:
        True if the angles between them are the same and none of them is lost; for a start without moments, if there
        still are none.
    """
    lengths = [np.linalg.norm(moments, axis=1) for moments in (before, after)]
    longest = float(lengths[1].max(initial=0.0))
    carriers = lengths[0] >= MOMENT_TOL
    if not carriers.any():
        return longest < MOMENT_TOL
    if (lengths[1][carriers] < max(MOMENT_TOL, INDUCED_TOL * longest)).any():
        return False
    products = []
    for moments, length in zip((before, after), lengths, strict=True):
        directions = moments[carriers] / length[carriers, None]
        products.append(directions @ directions.T)
    return float(np.abs(products[0] - products[1]).max()) <= DIRECTION_TOL

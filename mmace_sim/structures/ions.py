"""Oxidation states, and the spin moments of ions by the number of their d or f electrons."""

from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from jaxtyping import Float, Int

from mmace_sim.graph.neighbors import near_pairs
from mmace_sim.structures.moment_table import ANIONS, is_compound

MAX_ELEMENTS: int = 8
MAX_ATOMS: int = 120
"""Formulas with more elements, or more atoms in their smallest unit, are not guessed: the combinations are too many."""

BOND: float = 1.25
"""Longest bond of an ion with an anion over the sum of their covalent radii."""

_D_HIGH = np.array([0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0], dtype=float)
_D_LOW = np.array([0, 1, 2, 3, 2, 1, 0, 1, 2, 1, 0], dtype=float)
"""Unpaired electrons of d⁰ … d¹⁰ in an octahedron: weak field, and strong field (t₂g filled first)."""
_F_HIGH = np.minimum(np.arange(15.0), 14.0 - np.arange(15.0))
_SERIES = ((21, 30, 18), (39, 48, 36), (72, 80, 68))
"""First and last d element of a row, and the electrons of the shells below."""
_F_SERIES = ((57, 71, 54), (89, 103, 86))


def oxidation_states(atoms: Atoms) -> dict[int, float]:
    """Oxidation state of each element by its formula, the mean where there are several.

    Returns:
        By atomic number; empty if there are no anions that take enough electrons, or nothing is known.
    """
    if not is_compound(atoms):
        return {}
    counts = atoms.symbols.formula.reduce()[0].count()
    if len(counts) > MAX_ELEMENTS or sum(counts.values()) > MAX_ATOMS:
        return {}
    return dict(_guess(tuple(sorted(counts.items()))))


@lru_cache(maxsize=1024)
def _guess(counts: tuple[tuple[str, int], ...]) -> tuple[tuple[int, float], ...]:
    from pymatgen.core import Composition  # seconds, and not needed where moments are in the files

    try:
        guesses = Composition(dict(counts)).oxi_state_guesses(max_sites=-1)
    except ValueError:  # an element without known states
        return ()
    return tuple((atomic_numbers[s], float(state)) for s, state in guesses[0].items()) if guesses else ()


def d_electrons(z: int, state: float) -> float | None:
    """Number of d electrons of an ion; None if it is none of a transition element.

    Args:
        z: Atomic number.
        state: Oxidation state.
    """
    for first, last, core in _SERIES:
        if first <= z <= last:
            return float(np.clip(z - core - state, 0.0, 10.0))
    return None


def spin_moment(z: int, state: float, *, low_spin: bool = False, tetrahedral: bool = False) -> float:
    """Spin moment of an ion by Hund's rule and the crystal field, in μB.

    3d ions are high-spin, or in an octahedron low-spin if asked for; in a tetrahedron the field is too weak for that.
    4d and 5d ions are always low-spin. Mean states of several ions give the mean.

    Args:
        z: Atomic number.
        state: Oxidation state.
        low_spin: Fill the lower orbitals first.
        tetrahedral: Four neighbours.
    """
    d = d_electrons(z, state)
    if d is not None:
        low = z >= 39 or (low_spin and not tetrahedral)
        return float(np.interp(d, np.arange(11.0), _D_LOW if low else _D_HIGH))
    for first, last, core in _F_SERIES:
        if first <= z <= last:
            return float(np.interp(np.clip(z - core - state, 0.0, 14.0), np.arange(15.0), _F_HIGH))
    return 0.0


def ion_name(symbol: str, state: float) -> str:
    """Name of an ion, as in Fe3+ or Fe2.67+.

    Args:
        symbol: Element.
        state: Oxidation state.
    """
    return f"{symbol}{abs(state):.3g}{'+' if state >= 0 else '-'}"


def bonds(
    atoms: Atoms, sites: Int[np.ndarray, " n_sites"]
) -> tuple[Int[np.ndarray, " n_bonds"], Int[np.ndarray, " n_bonds"], Float[np.ndarray, "n_bonds 3"]]:
    """Bonds of anions with some of the other atoms.

    Args:
        atoms: Structure.
        sites: Indices of atoms.

    Returns:
        Indices of anions and of the atoms they are bonded to, and vectors from the former to the latter, in Å.
    """
    is_anion = np.array([symbol in ANIONS for symbol in atoms.get_chemical_symbols()])
    radii = covalent_radii[atoms.numbers]
    none = np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros((0, 3))
    if not is_anion.any() or not len(sites):
        return none
    cutoff = BOND * float(radii[is_anion].max() + radii[sites].max())
    i, j, d, vectors = near_pairs("ijdD", atoms, cutoff)
    kept = is_anion[i] & np.isin(j, sites) & ~is_anion[j] & (d <= BOND * (radii[i] + radii[j]))
    return i[kept], j[kept], vectors[kept]

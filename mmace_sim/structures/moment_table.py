"""Usual moments of all elements, in metals and in compounds with anions."""

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.structures.moment_range import START_SHARE

_METALS = {"V": 1.0, "Cr": 2.0, "Mn": 3.0, "Fe": 2.5, "Co": 1.7, "Ni": 0.7}
_RARE_EARTHS = {
    "Ce": 1.0, "Pr": 2.0, "Nd": 3.0, "Pm": 4.0, "Sm": 5.0, "Eu": 7.0, "Gd": 7.0,
    "Tb": 6.0, "Dy": 5.0, "Ho": 4.0, "Er": 3.0, "Tm": 2.0, "Yb": 1.0,
}  # fmt: skip
_ACTINIDES = {"U": 2.0, "Np": 3.0, "Pu": 4.0, "Am": 6.0, "Cm": 7.0, "Bk": 6.0, "Cf": 5.0}
_WEAK = dict.fromkeys(("Ti", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "W", "Re", "Os", "Ir", "Pt"), 0.6)

HIGH_SPIN: dict[str, float] = _WEAK | _METALS | _RARE_EARTHS | _ACTINIDES
"""Starting moment of each element in a metal, in μB; every element that is not listed starts at zero.

3d metals: slightly above the moment of the magnetic metal (bcc Fe 2.2, hcp Co 1.6, fcc Ni 0.6, α-Mn up to 2.8), so
that a relaxation comes down from the high-spin side. 4f and 5f elements: the spin moment 2S of the trivalent ion by
Hund's rule (Eu: divalent). 4d and 5d metals: 0.6, since their moments are induced.

The sets of others start higher: the Materials Project and atomate (pymatgen, ``MPRelaxSet.yaml``) at 5 for V, Cr, Mn,
Fe, Ni, Mo and W and at 0.6 for every element that is not named, OQMD at 5 for all d elements and 7 for all f elements.
A self-consistent calculation finds down from there; a potential knows no such moments, and an element that starts
at zero follows the field of its neighbours anyway.
"""

COMPOUND: dict[str, float] = {
    "Ti": 1.0, "V": 2.0, "Cr": 3.0, "Mn": 5.0, "Fe": 5.0, "Co": 3.0, "Ni": 2.0, "Cu": 1.0,
}  # fmt: skip
"""The same in compounds with anions where it differs, in μB: the spin moment of the commonest ion in its high-spin
state (Ti3+, V3+, Cr3+, Mn2+, Fe3+, Co2+, Ni2+, Cu2+)."""

ANIONS: dict[str, int] = {
    "N": 3, "O": 2, "F": 1, "S": 2, "Cl": 1, "Se": 2, "Br": 1, "Te": 2, "I": 1,
}  # fmt: skip
"""Elements that take electrons, and how many."""

FEWEST_ELECTRONS: float = 1.0
"""Electrons that anions take from each other atom, from which on a structure counts as a compound: not Fe4N, steel."""


def is_compound(atoms: Atoms) -> bool:
    """Whether anions take at least one electron from each other atom, so that the others are ions."""
    taken = [ANIONS.get(symbol, 0) for symbol in atoms.get_chemical_symbols()]
    n_others = sum(electrons == 0 for electrons in taken)
    return n_others > 0 and sum(taken) >= FEWEST_ELECTRONS * n_others


def usual_lengths(atoms: Atoms) -> Float[np.ndarray, " n_atoms"]:
    """Usual starting moment of each atom, from `HIGH_SPIN` and `COMPOUND`, in μB."""
    table = HIGH_SPIN | COMPOUND if is_compound(atoms) else HIGH_SPIN
    return np.array([table.get(symbol, 0.0) for symbol in atoms.get_chemical_symbols()])


def within_range(
    atoms: Atoms, lengths: Float[np.ndarray, " n_atoms"], largest: Mapping[int, float] | None
) -> Float[np.ndarray, " n_atoms"]:
    """Lengths below `START_SHARE` of the largest that a model was made for.

    Args:
        atoms: Structure.
        lengths: Lengths, in μB.
        largest: Largest moment of each element, in μB, by atomic number; others have no limit.
    """
    return np.minimum(lengths, [START_SHARE * (largest or {}).get(z, np.inf) for z in atoms.numbers.tolist()])

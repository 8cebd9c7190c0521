"""Candidates: structures with moments that a calculation can be made of, each with a name that is its content."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Bool, Float

from mmace_sim.errors import DataError, StructureError
from mmace_sim.graph.atoms import bare_copy, get_magmoms, has_magmoms, set_magmoms
from mmace_sim.graph.neighbors import near_pairs
from mmace_sim.io.collection import FailedStructure, load_structures
from mmace_sim.properties.order.states import state_fingerprint
from mmace_sim.structures.checks import check_distances, check_moments, check_numbers

HOLD: str = "hold_moment"
"""Array of a candidate: whether the moment of each atom is held at its value, or is the start of a free one."""

ID: str = "config_id"
TYPE: str = "config_type"

CLOSEST: float = 0.7
"""Smallest distance of two atoms over the sum of their covalent radii (Fe–Fe 1.85 Å, Ni–O 1.33 Å)."""

SAME: float = 1e-3
"""Largest difference of fingerprints (`mmace_sim.properties.order.states`) of two candidates that are one."""

MIN_HELD: float = 0.01
"""Moments below this (μB) are not held unless the candidate says so."""

_DIGEST = 12


def candidate(
    atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"], hold: bool | Bool[np.ndarray, " n_atoms"]
) -> Atoms:
    """A candidate without a name.

    Args:
        atoms: Structure; only elements, positions, cell and boundaries are used.
        magmoms: Moments, in μB.
        hold: Whether moments are held, of each atom or of all.

    Returns:
        A structure with moments and the array `HOLD`.
    """
    bare = bare_copy(atoms, magmoms)
    bare.set_array(HOLD, np.broadcast_to(np.asarray(hold, dtype=bool), len(atoms)).copy())
    return bare


def named(atoms: Atoms, parent: str, recipe: str) -> Atoms:
    """Give a candidate its name, which never stands for another content.

    Args:
        atoms: From `candidate`.
        parent: What it was made from.
        recipe: How.

    Returns:
        The same structure, with `ID` and `TYPE`.
    """
    atoms.info[ID] = f"{parent}-{recipe}-{content_hash(atoms)[:_DIGEST]}"
    atoms.info[TYPE] = f"{parent}-{recipe}"
    return atoms


def content_hash(atoms: Atoms) -> str:
    """Hash of elements, positions, cell, moments and which of them are held, to 10⁻⁶ Å and μB.

    Args:
        atoms: Candidate.
    """
    parts = (atoms.positions, atoms.cell.array, get_magmoms(atoms))
    rounded = [np.round(part, 6) + 0.0 for part in parts]
    content = [atoms.numbers.astype("<i8"), *rounded, held(atoms), atoms.pbc]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in content)).hexdigest()


def held(atoms: Atoms) -> Bool[np.ndarray, " n_atoms"]:
    """Which moments are held: what the array `HOLD` says; without it, all that are not zero.

    Args:
        atoms: Candidate.
    """
    if HOLD in atoms.arrays:
        return atoms.arrays[HOLD].astype(bool)
    return np.linalg.norm(get_magmoms(atoms), axis=1) > MIN_HELD


def load_candidates(paths: Sequence[str | Path]) -> tuple[list[Atoms], list[str]]:
    """Candidates from files of any format; those without a name get one of their file and position.

    Args:
        paths: Files and folders.

    Returns:
        Candidates with different names, and one message for each that cannot be used.

    Raises:
        DataError: If there is none, or two different ones have the same name.
    """
    found: dict[str, Atoms] = {}
    problems = []
    for item in load_structures(paths):
        if isinstance(item, FailedStructure):
            problems.append(item.message)
            continue
        atoms = item.atoms
        if not has_magmoms(atoms):
            set_magmoms(atoms, np.zeros((len(atoms), 3)))
            atoms.set_array(HOLD, np.zeros(len(atoms), dtype=bool))
        try:
            check_numbers(atoms)
            check_moments(atoms)
        except StructureError as error:
            problems.append(f"{item.name}: {error}")
            continue
        name = str(atoms.info.setdefault(ID, item.name))
        atoms.info.setdefault(TYPE, "default")
        if content_hash(found.setdefault(name, atoms)) != content_hash(atoms):
            raise DataError(
                f"{item.file}: two candidates are called {name!r} and differ. Give them different {ID}."
            )
    if not found:
        told = f" ({problems[0]})" if problems else ""
        raise DataError(f"no candidate in {', '.join(map(str, paths))}{told}.")
    return list(found.values()), problems


def refusal(atoms: Atoms) -> str:
    """Why a candidate is no state of matter, or "".

    Args:
        atoms: Candidate.
    """
    try:
        check_distances(atoms)  # in a cell that is far too small a list of neighbours has no end
    except StructureError as error:
        return str(error)
    radii = covalent_radii[atoms.numbers]
    first, second, distances = near_pairs("ijd", atoms, float(2 * radii.max()))
    ratios = distances / (radii[first] + radii[second])
    if not len(ratios) or ratios.min() >= CLOSEST:
        return ""
    k = int(ratios.argmin())
    pair = f"{atoms.symbols[int(first[k])]}–{atoms.symbols[int(second[k])]}"
    return f"{pair} at {distances[k]:.2f} Å, closer than {CLOSEST} of their covalent radii"


class Distinct:
    """Tells candidates that were seen before, in another orientation, cell, order of atoms or sign of all moments."""

    def __init__(self) -> None:
        self._seen: dict[tuple, list[Float[np.ndarray, " n"]]] = {}

    def is_new(self, atoms: Atoms, *, turned: bool = False) -> bool:
        """Whether a candidate is none of those before; it is remembered.

        Args:
            atoms: Candidate.
            turned: Whether a common rotation of all moments makes another one (spin–orbit coupling).
        """
        magmoms = get_magmoms(atoms)
        features = state_fingerprint(atoms, magmoms)
        # held moments are another calculation than free ones that start alike
        kind: tuple = (tuple(np.unique(atoms.numbers).tolist()), len(features), float(held(atoms).mean()))
        if turned:
            kind = (*kind, content_hash(atoms))
        others = self._seen.setdefault(kind, [])
        if any(float(np.abs(other - features).max()) < SAME for other in others):
            return False
        others.append(features)
        return True

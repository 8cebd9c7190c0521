"""Structures in the JSON of pymatgen and the Materials Project, read as plain data.

`Structure.from_dict` hands site properties to a decoder that imports whatever ``@module`` they name, so a structure
file could run code. This reader takes numbers and element symbols and never looks at ``@module``.
"""

import re
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.constraints import FixAtoms, FixScaled
from ase.data import atomic_numbers
from ase.units import fs

from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.graph.atoms import MAGMOM_ARRAYS, set_magmoms
from mmace_sim.io.base import add_note

_FIRST = ("structure", "final_structure", "output", "molecule")
"""Keys of a document that are looked at first: what was found there is the answer, not what it was made from."""

_MOLECULES = ("Molecule", "IMolecule")

_DISORDERED = "sites are partially occupied; give an ordered structure (e.g. a supercell)."

_ISOTOPES = {"D": 1, "T": 1}


def find_structures(data: Any) -> list[dict[str, Any]]:
    """The dictionaries of structures and molecules in parsed JSON, at any depth.

    Args:
        data: A structure, an entry or document that holds one, or lists and dictionaries of these.

    Returns:
        Their dictionaries in the order of the file. Of a document with a ``structure`` only that one is taken, not the
        one that it was relaxed from.
    """
    if isinstance(data, list):
        return [found for item in data for found in find_structures(item)]
    if not isinstance(data, dict):
        return []
    if _is_structure(data):
        return [data]
    for key in _FIRST:
        found = find_structures(data.get(key))
        if found:
            return found
    return [found for value in data.values() for found in find_structures(value)]


def _is_structure(data: dict[str, Any]) -> bool:
    sites = data.get("sites")
    return isinstance(sites, list) and all(isinstance(site, dict) and "species" in site for site in sites)


def atoms_from_dict(data: dict[str, Any]) -> Atoms:
    """A structure with its moments, velocities and selective dynamics.

    Args:
        data: Dictionary of a pymatgen ``Structure`` or ``Molecule`` (or their immutable kinds).

    Returns:
        The structure. Moments are the site property ``magmom`` (numbers, vectors, or ``Magmom`` of any spin axis), else
        the spin of the species; where some sites have one, those without count as 0, with a note.

    Raises:
        NotAStructureError: If there is no site.
        StructureError: If sites are disordered or hold no element, or numbers or the lattice are
            missing.
    """
    sites = data["sites"]
    if not sites:
        raise NotAStructureError("holds a structure without sites.")
    try:
        lattice = data.get("lattice")
        if lattice is None and data.get("@class") not in _MOLECULES:
            raise StructureError("the lattice of the structure is missing; only a Molecule has none.")
        numbers = [_number(site["species"], index) for index, site in enumerate(sites)]
        cell = None if lattice is None else _cell(lattice)
        pbc = False if lattice is None else lattice.get("pbc", True)
        atoms = Atoms(numbers, positions=_positions(sites, cell), cell=cell, pbc=pbc)
        _add_moments(atoms, sites)
        _add_motion(atoms, sites)
    except (KeyError, TypeError, IndexError) as error:
        raise StructureError(
            f"the dictionary of the structure is incomplete ({type(error).__name__}: {error})."
        ) from error
    return atoms


def _cell(lattice: dict[str, Any]) -> np.ndarray:
    if "matrix" in lattice:
        return _floats(lattice["matrix"]).reshape(3, 3)
    return Cell.fromcellpar([lattice[key] for key in ("a", "b", "c", "alpha", "beta", "gamma")]).array


def _positions(sites: list[dict[str, Any]], cell: np.ndarray | None) -> np.ndarray:
    if cell is not None and all("abc" in site for site in sites):
        return np.array([_floats(site["abc"]) for site in sites]).reshape(-1, 3) @ cell
    return np.array([_floats(site["xyz"]) for site in sites]).reshape(-1, 3)


def _number(species: list[dict[str, Any]], index: int) -> int:
    """Atomic number of the one species of a site."""
    if len(species) != 1 or abs(float(species[0].get("occu", 1)) - 1) > 1e-3:
        raise StructureError(_DISORDERED)
    name = str(species[0]["element"])
    symbol = re.match(r"[A-Z][a-z]?", name)
    number = 0 if symbol is None else atomic_numbers.get(symbol[0], _ISOTOPES.get(symbol[0], 0))
    if number == 0 or not re.fullmatch(r"[A-Z][a-z]?\d*\.?\d*[+-]?", name):
        raise StructureError(f"site {index} holds {name!r}, which is no element.")
    return number


def _add_moments(atoms: Atoms, sites: list[dict[str, Any]]) -> None:
    moments = [_site_moment(site) for site in sites]
    missing = [index for index, moment in enumerate(moments) if moment is None]
    if len(missing) == len(sites):
        return
    if missing:
        add_note(atoms, f"{len(missing)} of {len(sites)} sites have no moment in the file: taken as 0 μB")
    set_magmoms(atoms, [np.zeros(3) if moment is None else moment for moment in moments])


def _site_moment(site: dict[str, Any]) -> np.ndarray | None:
    """Moment of a site as a vector, or None."""
    properties = site.get("properties") or {}
    moment = next((properties[key] for key in MAGMOM_ARRAYS if properties.get(key) is not None), None)
    if moment is None:
        species = site["species"][0]
        moment = species.get("spin", (species.get("properties") or {}).get("spin"))
    axis = np.array([0.0, 0.0, 1.0])
    if isinstance(moment, dict) and "moment" in moment:  # a Magmom
        axis = _floats(moment.get("saxis", axis))
        moment = moment["moment"]
    if moment is None:
        return None
    values = _floats(moment)
    return spin_axes(axis) @ (values * [0.0, 0.0, 1.0] if values.size == 1 else values)


def _floats(value: Any) -> np.ndarray:
    """Numbers, or an array as pymatgen writes it."""
    return np.array(value["data"] if isinstance(value, dict) else value, dtype=float)


def spin_axes(saxis: np.ndarray) -> np.ndarray:
    """Rotation from the frame of a spin quantisation axis to Cartesian axes: R_z(α) R_y(β), with the angles of SAXIS.

    Args:
        saxis: VASP's SAXIS; (0, 0, 1) gives the identity.
    """
    x, y, z = saxis
    alpha, beta = np.arctan2(y, x), np.arctan2(np.hypot(x, y), z)
    ca, sa, cb, sb = np.cos(alpha), np.sin(alpha), np.cos(beta), np.sin(beta)
    return np.array([[ca * cb, -sa, ca * sb], [sa * cb, ca, sa * sb], [-sb, 0.0, cb]])


def _add_motion(atoms: Atoms, sites: list[dict[str, Any]]) -> None:
    """Velocities and selective dynamics."""
    properties = [site.get("properties") or {} for site in sites]
    velocities = [values.get("velocities") for values in properties]
    if any(velocity is not None for velocity in velocities):
        atoms.set_velocities([np.zeros(3) if v is None else _floats(v) / fs for v in velocities])
    flags = [values.get("selective_dynamics") for values in properties]
    movable = np.array([np.ones(3) if flag is None else _floats(flag) for flag in flags]) != 0
    set_selective_dynamics(atoms, movable)


def set_selective_dynamics(atoms: Atoms, movable: np.ndarray) -> None:
    """Fix atoms as selective dynamics says.

    Args:
        atoms: Structure to change.
        movable: Shape (n_atoms, 3), True where the fractional coordinate may move.
    """
    whole = np.flatnonzero(~movable.any(axis=1))
    partly = np.flatnonzero(movable.any(axis=1) & ~movable.all(axis=1))
    constraints = [FixAtoms(whole)] if len(whole) else []
    atoms.set_constraint(constraints + [FixScaled(index, mask=~movable[index]) for index in partly.tolist()])

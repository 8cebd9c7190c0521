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


def find_structures(data: object) -> list[dict[str, Any]]:
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
            return [_with_moments(structure, data) for structure in found] if len(found) == 1 else found
    return [found for value in data.values() for found in find_structures(value)]


def _with_moments(structure: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A structure with the moments that its document lists beside it, one for each site, as MatPES does."""
    sites = structure["sites"]
    beside = {name: document.get(name) for name in MAGMOM_ARRAYS}
    for name, values in beside.items():
        if isinstance(values, list) and len(values) == len(sites):
            sites = [
                site | {"properties": {name: value} | _given(site.get("properties"))}
                for site, value in zip(sites, values, strict=True)
            ]
    return structure | {"sites": sites}


def _given(properties: Any) -> dict[str, Any]:
    """Properties of a site that are not None."""
    return {key: value for key, value in (properties or {}).items() if value is not None}


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
        pbc = False if lattice is None else _flags(lattice.get("pbc", [True] * 3), "pbc of the lattice")
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
        return _floats(lattice["matrix"], "matrix of the lattice", 9).reshape(3, 3)
    names = ("a", "b", "c", "alpha", "beta", "gamma")
    return Cell.fromcellpar([_floats(lattice[name], f"{name} of the lattice", 1)[0] for name in names]).array


def _positions(sites: list[dict[str, Any]], cell: np.ndarray | None) -> np.ndarray:
    key = "abc" if cell is not None and all("abc" in site for site in sites) else "xyz"
    found = [_floats(site[key], f"{key} of site {index}", 3) for index, site in enumerate(sites)]
    positions = np.array(found).reshape(-1, 3)
    return positions @ cell if key == "abc" else positions


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
    given = [_given_moments(site) for site in sites]
    moments = [_moment(values, index) for index, values in enumerate(given)]
    missing = [index for index, moment in enumerate(moments) if moment is None]
    if len(missing) == len(sites):
        return
    if missing:
        add_note(atoms, f"{len(missing)} of {len(sites)} sites have no moment in the file: taken as 0 μB")
    left = sorted({name for values in given for name, other in values[1:] if other != values[0][1]})
    if left:
        taken = sorted({values[0][0] for values in given if values})
        add_note(
            atoms, f"moments are {', '.join(taken)} of the file; {', '.join(left)} differs and is left out"
        )
    set_magmoms(atoms, [np.zeros(3) if moment is None else moment for moment in moments])


def _given_moments(site: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every moment that a site has, by its name, in order of precedence."""
    properties = site.get("properties") or {}
    species = site["species"][0]
    spin = species.get("spin", (species.get("properties") or {}).get("spin"))
    found = [(key, properties.get(key)) for key in MAGMOM_ARRAYS] + [("the spin of the species", spin)]
    return [(key, value) for key, value in found if value is not None]


def _moment(given: list[tuple[str, Any]], index: int) -> np.ndarray | None:
    """Moment of a site as a vector, or None."""
    if not given:
        return None
    name, moment = given[0]
    where = f"{name} of site {index}"
    axis = np.array([0.0, 0.0, 1.0])
    if isinstance(moment, dict) and "moment" in moment:  # a Magmom
        axis = _floats(moment.get("saxis", axis), f"saxis in {where}", 3)
        if not axis.any():
            raise StructureError(f"saxis in {where} is zero; expected a direction.")
        moment = moment["moment"]
    values = _floats(moment, where, 1, 3)
    return spin_axes(axis) @ (values * [0.0, 0.0, 1.0] if values.size == 1 else values)


def _floats(value: Any, what: str, *sizes: int) -> np.ndarray:
    """Numbers, or an array as pymatgen writes it.

    Args:
        value: What the file has.
        what: Its name, for messages.
        sizes: How many numbers there may be.

    Returns:
        The numbers in one row.

    Raises:
        StructureError: If these are other things, or not as many.
    """
    data = value["data"] if isinstance(value, dict) and "data" in value else value
    try:
        array = np.array(data)
        numbers = array.astype(float).ravel() if array.dtype.kind in "iuf" else np.zeros(0)
    except (ValueError, OverflowError):
        numbers = np.zeros(0)
    if numbers.size not in sizes:
        expected = " or ".join({1: "one number", 3: "three numbers"}.get(n, f"{n} numbers") for n in sizes)
        raise StructureError(f"{what} is {str(value)[:60]}; expected {expected}.")
    return numbers


def _flags(value: object, what: str) -> list[bool]:
    """Three booleans."""
    data = value["data"] if isinstance(value, dict) and "data" in value else value
    if not isinstance(data, list) or len(data) != 3 or not all(flag in (True, False) for flag in data):
        raise StructureError(f"{what} is {str(value)[:60]}; expected three of true and false.")
    return [bool(flag) for flag in data]


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
        values = [
            np.zeros(3) if velocity is None else _floats(velocity, f"velocities of site {index}", 3)
            for index, velocity in enumerate(velocities)
        ]
        atoms.set_velocities(np.array(values) / fs)
    flags = [
        [True] * 3 if flag is None else _flags(flag, f"selective_dynamics of site {index}")
        for index, flag in enumerate(values.get("selective_dynamics") for values in properties)
    ]
    movable = np.array(flags, dtype=bool).reshape(-1, 3)
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

"""Rows of ASE's databases as plain dictionaries, and the structures that they hold.

The readers of JSON, SQLite, LMDB and trajectory files give such dictionaries; nothing in them is decoded further. ASE's
own readers are not used: they build whatever object a file names and allocate whatever size it announces.
"""

from collections.abc import Mapping
from typing import Any

import ase.constraints
import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import INITIAL_MAGMOMS, check_atomic_numbers, set_magmoms
from mmace_sim.io.base import PER_ATOM, PER_STRUCTURE, remarks
from mmace_sim.io.plain_json import parse_ase_json

CONSTRAINTS: frozenset[str] = frozenset(
    {"FixAtoms", "FixBondLength", "FixBondLengths", "FixCartesian", "FixCom", "FixInternals", "FixLinearTriatomic",
     "FixScaled", "FixSubsetCom", "FixedLine", "FixedMode", "FixedPlane", "Hookean"}
)  # fmt: skip
"""Constraints that a file may name; all of them are made from numbers only."""

NAMES: frozenset[str] = frozenset(
    {"numbers", "positions", "cell", "pbc", "tags", "masses", "initial_charges", "momenta", "initial_magmoms",
     "constraints", "magforces", *all_properties}
)  # fmt: skip
"""What a row may say of a structure."""

_PER_ATOM = ("forces", "magmoms", "magforces", "charges", "energies")


def atoms_of_row(row: Mapping[str, Any]) -> Atoms:
    """The structure of a row, with its calculator results in ``atoms.calc``.

    Args:
        row: ``numbers`` and ``positions``, and whatever else ASE's databases have.

    Raises:
        StructureError: If numbers or positions are missing, or lengths do not agree.
    """
    if "numbers" not in row or "positions" not in row:
        raise StructureError("the row has no numbers or no positions")
    numbers = check_atomic_numbers(row["numbers"])
    cell, pbc = row.get("cell"), row.get("pbc")
    cell = cell.get("array") if isinstance(cell, Mapping) else cell  # ASE's JSON wraps it
    atoms = Atoms(numbers, positions=_vectors(row["positions"], len(numbers), "positions"))
    atoms.set_cell(np.zeros((3, 3)) if cell is None else np.array(cell, dtype=float))
    atoms.set_pbc(False if pbc is None else np.array(pbc, dtype=bool))
    if row.get("tags") is not None:
        atoms.set_tags(np.array(row["tags"], dtype=int))
    if row.get("masses") is not None:
        atoms.set_masses(np.array(row["masses"], dtype=float))
    if row.get("initial_charges") is not None:
        atoms.set_initial_charges(np.array(row["initial_charges"], dtype=float))
    if row.get("momenta") is not None:
        atoms.set_momenta(_vectors(row["momenta"], len(atoms), "momenta"))
    if row.get("initial_magmoms") is not None:
        set_magmoms(atoms, _shaped(row["initial_magmoms"], len(atoms)))
    try:
        atoms.set_constraint(read_constraints(row.get("constraints"), len(atoms)))
    except StructureError as error:
        remarks(atoms).problem = error
    set_results(atoms, {name: row.get(name) for name in (*all_properties, "magforces")})
    return atoms


def row_to_atoms(row: dict[str, Any], keys: LabelKeys) -> Atoms:
    """Structure of a row with its labels under the given names.

    Names are looked for in `data` and among the key-value pairs of the row, then labels among the calculator results.

    Args:
        row: A row.
        keys: Names of the labels.

    Raises:
        StructureError: If numbers or positions are missing, or the lengths do not agree.
    """
    atoms = atoms_of_row(row)
    data = dict(row.get("data") or {})
    info = data.pop("info", None)
    atoms.info.update(info if isinstance(info, dict) else {})
    atoms.info.update(row.get("key_value_pairs") or {})
    per_atom = {getattr(keys, label) for label in PER_ATOM}
    if INITIAL_MAGMOMS in data and INITIAL_MAGMOMS not in atoms.arrays:
        set_magmoms(atoms, _shaped(data.pop(INITIAL_MAGMOMS), len(atoms)))
    for key, value in data.items():
        if key in per_atom:
            atoms.arrays[key] = np.asarray(value, dtype=float)
        elif key in (*(getattr(keys, label) for label in PER_STRUCTURE), keys.config_type):
            atoms.info[key] = value
    known = {*per_atom, *NAMES}
    remarks(atoms).unread.update((key, value) for key, value in data.items() if key not in known)
    results = dict(getattr(atoms.calc, "results", None) or {})
    names = ("forces", "stress", "magmoms", "magforces")
    set_results(
        atoms, {name: data.get(name) for name in names if name in data and name not in per_atom} | results
    )
    return atoms


def set_results(atoms: Atoms, results: Mapping[str, Any]) -> None:
    """Attach what was computed for a structure.

    Args:
        atoms: Structure to change.
        results: Values by name; None is left out. Vectors of all atoms may stand one after the other.
    """
    found = {
        name: _shaped(value, len(atoms)) if name in _PER_ATOM else value
        for name, value in results.items()
        if value is not None
    }
    if found:
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results.update(found)


def read_constraints(value: Any, n_atoms: int) -> list[ase.constraints.FixConstraint]:
    """Constraints as ASE writes them into files.

    Args:
        value: A list of dictionaries with a name and arguments, its JSON, or None.
        n_atoms: Number of atoms.

    Raises:
        StructureError: If a constraint is none of `CONSTRAINTS`, or its arguments are wrong.
    """
    if isinstance(value, str | bytes):
        value = parse_ase_json(value if isinstance(value, str) else value.decode("utf-8", "replace"))
    constraints = []
    for item in () if value is None else value:
        arguments = dict(item.get("kwargs", item)) if isinstance(item, Mapping) else {}
        name = str(item.get("name", arguments.pop("__name__", ""))) if isinstance(item, Mapping) else ""
        name = name.rsplit(".", 1)[-1]
        if name not in CONSTRAINTS:
            raise StructureError(
                f"the constraint {name!r} in the file is not known. Remove it from the file."
            )
        if name in ("FixedLine", "FixedPlane") and "a" in arguments:
            arguments["indices"] = arguments.pop("a")
        arguments.pop("name", None)
        try:
            constraint = getattr(ase.constraints, name)(**arguments)
            index = getattr(constraint, "index", ())
            indices = np.asarray(() if isinstance(index, slice) else index, dtype=int)  # FixCom holds all
        except (AssertionError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise StructureError(f"the constraint {name} in the file is mutilated ({error}).") from error
        if indices.size and (indices.max() >= n_atoms or indices.min() < -n_atoms):
            raise StructureError(f"the constraint {name} is about an atom that the structure has not.")
        constraints.append(constraint)
    return constraints


def _vectors(values: Any, n_atoms: int, name: str) -> np.ndarray:
    try:
        vectors = np.array(values, dtype=float)
        if vectors.size == 3 * n_atoms:
            return vectors.reshape(n_atoms, 3)
    except (TypeError, ValueError) as error:
        raise StructureError(f"{name} are no numbers ({error})") from error
    raise StructureError(f"{name} have shape {vectors.shape}, but there are {n_atoms} atoms")


def _shaped(values: Any, n_atoms: int) -> Any:
    """Values per atom; SQLite stores vectors one after the other."""
    values = np.asarray(values)
    return values.reshape(n_atoms, 3) if values.ndim == 1 and values.size == 3 * n_atoms else values

"""Symmetry operations in CIF: tags, operations as text, and the full list of them in a magnetic data block."""

import re
from fractions import Fraction
from typing import Any

import numpy as np

from mmace_sim.errors import StructureError
from mmace_sim.io.space_groups import magnetic_operations_of

OPERATIONS = "_space_group_symop_magn_operation_xyz"
CENTERINGS = "_space_group_symop_magn_centering_xyz"
BNS_NUMBER = "_space_group_magn_number_bns"
_TRANSFORMS = ("_space_group_magn_transform_bns_pp_abc", "_space_group_magn_transform_bns_pp")
_NAMES = (
    "_space_group_magn_name_bns", "_space_group_magn_number_og", "_space_group_magn_name_og",
    "_space_group_magn_name_uni",
)  # fmt: skip

PLAIN_OPERATIONS: tuple[str, ...] = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
"""Names of operations without moments."""

PLAIN_NUMBERS: tuple[str, ...] = ("_space_group_it_number", "_symmetry_int_tables_number")
"""Names of the number of the group without moments."""

PLAIN_SYMBOLS: tuple[str, ...] = (
    "_space_group_name_h-m_alt",
    "_space_group_name_h-m_full",
    "_symmetry_space_group_name_h-m",
)
"""Names of its symbol."""

Operation = tuple[np.ndarray, np.ndarray, int]
"""Rotation and translation in fractional coordinates, and the sign of time."""


def lower_tags(block: Any) -> dict[str, Any]:
    """Tags of a data block in lower case and with underscores for dots, as versions of the dictionaries differ."""
    return {key.lower().replace(".", "_"): value for key, value in block.items()}


def column(tags: dict[str, Any], name: str) -> list[Any]:
    """Values of a tag as a list: a CIF writes a single value without a loop.

    Args:
        tags: From `lower_tags`.
        name: The tag.
    """
    value = tags.get(name, [])
    return list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def parse_operation(text: str) -> Operation:
    """Read one magnetic operation such as ``-y, x+1/2, z, -1``.

    Args:
        text: The operation; without a fourth entry, time is not reversed.

    Returns:
        Rotation and translation in fractional coordinates, and the sign of time.

    Raises:
        StructureError: If the text is no such operation.
    """
    parts = [part.strip().lower().replace(" ", "") for part in text.split(",")]
    if len(parts) not in (3, 4):
        raise StructureError(
            f"cannot read the symmetry operation {text!r}; expected something like '-y,x+1/2,z,-1'."
        )
    rotation, translation = np.zeros((3, 3)), np.zeros(3)
    try:
        for row, part in enumerate(parts[:3]):
            rotation[row], translation[row] = parse_coordinate(part)
        time = int(parts[3]) if len(parts) == 4 else 1
    except (ValueError, ZeroDivisionError) as error:
        raise StructureError(f"cannot read the symmetry operation {text!r} ({error}).") from error
    if time not in (1, -1):
        raise StructureError(f"the symmetry operation {text!r} has the time reversal {time}, not +1 or -1.")
    if abs(abs(np.linalg.det(rotation)) - 1) > 1e-6:
        raise StructureError(
            f"the symmetry operation {text!r} is none of a crystal: its determinant is "
            f"{np.linalg.det(rotation):.4g}, not +1 or -1. Give three components in x, y, z, then the time reversal."
        )
    return rotation, translation, time


def parse_coordinate(text: str) -> tuple[np.ndarray, float]:
    """One row of an operation: coefficients of x, y, z and the constant."""
    row, constant = np.zeros(3), 0.0
    for term in text.replace("-", "+-").split("+"):
        if not term:
            continue
        variable = term[-1]
        if variable in "xyz":
            factor = term[:-1].rstrip("*")
            row["xyz".index(variable)] += {"": 1.0, "-": -1.0}.get(factor) or float(Fraction(factor))
        else:
            constant += float(Fraction(term))
    return row, constant


def magnetic_operations(tags: dict[str, Any], metric: np.ndarray) -> tuple[list[Operation], str]:
    """All magnetic operations of a block, centering translations (and anti-translations) included.

    Args:
        tags: From `lower_tags`.
        metric: Metric tensor of the cell (Å²).

    Returns:
        The operations, and a note on where they come from if they are not listed, else "".

    Raises:
        StructureError: If they are neither listed completely nor known from the number of the group.
    """
    if OPERATIONS not in tags:
        return _operations_unlisted(tags, metric)
    operations = _listed_operations(tags, OPERATIONS)
    identity: Operation = (np.eye(3), np.zeros(3), 1)
    centerings = _listed_operations(tags, CENTERINGS) if CENTERINGS in tags else [identity]
    products = [
        (rotation, translation + shift, time * time_shift)
        for _, shift, time_shift in centerings
        for rotation, translation, time in operations
    ]
    return products, ""


def _listed_operations(tags: dict[str, Any], name: str) -> list[Operation]:
    """Operations of one loop; raise if the identity is not among them."""
    operations = [parse_operation(str(text)) for text in column(tags, name)]
    if not any(np.allclose(rotation, np.eye(3)) and time == 1 for rotation, _, time in operations):
        raise StructureError(
            f"the operations {name.removesuffix('_xyz')}.xyz have no identity, so that some are missing. List all, "
            "x,y,z,+1 included."
        )
    return operations


def _operations_unlisted(tags: dict[str, Any], metric: np.ndarray) -> tuple[list[Operation], str]:
    """Operations by the BNS number, or the identity for a plain list of all atoms; raise if there is other symmetry."""
    number = _known(tags, BNS_NUMBER)
    if number not in ("", "1.1"):
        setting = re.sub(r"\s", "", " ".join(_known(tags, name) for name in _TRANSFORMS)).lower()
        if setting not in ("", "a,b,c;0,0,0"):
            raise StructureError(
                f"the magnetic symmetry is given only by its number (BNS {number}), in a setting of its own "
                f"({setting}). List its operations in _space_group_symop_magn_operation.xyz, or all atoms in P1."
            )
        note = (
            f"the file lists no symmetry operations: those of BNS {number} in the standard setting are taken"
        )
        return magnetic_operations_of(number, metric), note
    named = next(
        (f"{name} {_known(tags, name)}" for name in _NAMES if _known(tags, name).strip("P .1")), None
    )
    plain = [len(column(tags, name)) for name in PLAIN_OPERATIONS if column(tags, name)]
    named = named or (None if plain else _plain_group(tags))
    if not number and (named or max(plain, default=0) > 1):
        raise StructureError(
            f"the file lists moments{f' ({named})' if named else ''} but no _space_group_symop_magn_operation.xyz, so "
            "that its magnetic symmetry is unknown. Export it with its operations, or in P1 with all atoms."
        )
    return [(np.eye(3), np.zeros(3), 1)], ""


def _plain_group(tags: dict[str, Any]) -> str | None:
    """The group without moments, if the file names one that makes atoms."""
    names = [
        name
        for name in PLAIN_SYMBOLS
        if re.sub(r"[\s_'\"]", "", _known(tags, name)).upper() not in ("", "P1")
    ]
    names += [name for name in PLAIN_NUMBERS if _known(tags, name) not in ("", "1")]
    return f"{names[0]} {_known(tags, names[0])}" if names else None


def _known(tags: dict[str, Any], name: str) -> str:
    """A value as text, "" if it is not there or not known."""
    text = str(tags.get(name, "")).strip()
    return "" if text in ("?", ".") else text

"""Symmetry operations of a space group that a CIF names and does not list, in the setting that name and cell say."""

import re
from functools import cache
from typing import Any

import numpy as np
import spglib

from mmace_sim.errors import StructureError

_CHOICE = re.compile(r"(?:\s*:\s*|\s+)([12HRSZhrsz]|[abcABC]\d?)\s*$")
"""Choice of origin or axes behind a name: ``F d -3 m :2``, ``R -3 m :H``, ``F d -3 m Z``."""

_CHOICES = {"s": "1", "z": "2", "h": "H", "r": "R"}

_N_HALL = 530
_N_MAGNETIC = 1651


def named_operations(
    name: str, number: int | None, code: str, metric: np.ndarray
) -> tuple[list[tuple[np.ndarray, np.ndarray]], str] | None:
    """Operations of a space group by its name.

    Args:
        name: Hermann–Mauguin symbol, short or full, any setting, with or without a choice of origin or axes.
        number: Number of the space group, None if unknown.
        code: Choice of origin or axes from elsewhere, "" if unknown.
        metric: Metric tensor of the cell (Å²); a setting must leave it as it is.

    Returns:
        Rotations and translations in fractional coordinates, and a note on what the name leaves open, else ""; None if
        the name is not known.

    Raises:
        StructureError: If number and name are those of different groups, or no setting fits the cell.
    """
    choice = _CHOICE.search(name)
    key = _key(name[: choice.start()] if choice else name)
    code = (choice[1] if choice else code).strip()
    code = _CHOICES.get(code.lower(), code)
    halls = _halls().get(key) or _halls().get(_key(name))
    if halls is None:
        return None
    kind = _setting(halls[0])
    if number is not None and kind.number != number:
        raise StructureError(
            f"the space group is {name!r}, which has the number {kind.number}, but the file says {number}. Correct it, "
            "or list all symmetry operations."
        )
    fitting = [hall for hall in halls if _fits(hall, metric)]
    if not fitting:
        raise StructureError(
            f"the cell of the file does not have the symmetry of its space group {name!r}. Correct lengths and angles, "
            "or list all symmetry operations."
        )
    chosen = [hall for hall in fitting if _setting(hall).choice == code] or fitting
    open_choice = len({_setting(hall).choice for hall in chosen} & {"1", "2"}) > 1
    note = (
        f"the space group {name} has two choices of the origin and the file says none: 1 is taken"
        if open_choice
        else ""
    )
    return _operations(chosen[0]), note


def magnetic_operations_of(number: str, metric: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Operations of a magnetic space group in the standard setting of Belov, Neronova and Smirnova.

    That is: unique axis b, hexagonal axes, the second origin where there are two.

    Args:
        number: BNS number such as ``139.540``; zeros at the end may be missing, since it was read as a number.
        metric: Metric tensor of the cell (Å²), which must have the symmetry.

    Returns:
        Rotations and translations in fractional coordinates, and the sign of time; centering translations included.

    Raises:
        StructureError: If there is no such group, or the cell does not have its symmetry.
    """
    group = next(
        (found for zeros in ("", "0", "00") if (found := _magnetic_groups().get(number + zeros))), None
    )
    if group is None:
        raise StructureError(f"there is no magnetic space group with the BNS number {number}.")
    uni, family = group
    halls = {_setting(hall).choice: hall for hall in reversed(_halls_of(family))}
    hall = halls.get("2") or halls.get("H") or _halls_of(family)[0]
    data: Any = spglib.get_magnetic_symmetry_from_database(uni, hall)
    if not _fits(hall, metric):
        raise StructureError(
            f"the cell of the file does not have the symmetry of its magnetic space group (BNS {number}) in the "
            "standard setting. List the operations in _space_group_symop_magn_operation.xyz, or all atoms in P1."
        )
    times = np.where(data["time_reversals"], -1, 1).tolist()
    rotations = data["rotations"].astype(float)
    return list(zip(rotations, data["translations"], times, strict=True))


@cache
def _magnetic_groups() -> dict[str, tuple[int, int]]:
    """Number in spglib, and the number of the space group whose setting is taken, by BNS number."""
    kinds: list[Any] = [spglib.get_magnetic_spacegroup_type(uni) for uni in range(1, _N_MAGNETIC + 1)]
    return {kind.bns_number: (kind.uni_number, kind.number) for kind in kinds}


@cache
def _halls_of(number: int) -> list[int]:
    return [hall for hall in range(1, _N_HALL + 1) if _setting(hall).number == number]


def _setting(hall: int) -> Any:
    """What spglib knows of a setting; there is one for each number."""
    return spglib.get_spacegroup_type(hall)


def _symmetry(hall: int) -> Any:
    """The operations of a setting; there are some for each number."""
    return spglib.get_symmetry_from_database(hall)


def _key(name: str) -> str:
    """A name without blanks; axes of order 1 of monoclinic names are left out."""
    words = name.replace("_", "").replace("(", "").replace(")", "").split()
    if len(words) == 4 and words[1:].count("1") == 2:
        words = [word for word in words if word != "1"]
    return "".join(words).lower()


@cache
def _halls() -> dict[str, list[int]]:
    """Settings by name, in the order of the International Tables."""
    found: dict[str, list[int]] = {}
    for hall in range(1, _N_HALL + 1):
        kind = _setting(hall)
        names = {kind.international_full, kind.international.split("=")[-1].strip()}
        for key in {_key(name) for name in names}:
            found.setdefault(key, []).append(hall)
    return found


def _operations(hall: int) -> list[tuple[np.ndarray, np.ndarray]]:
    data = _symmetry(hall)
    return [
        (rotation.astype(float), translation)
        for rotation, translation in zip(data["rotations"], data["translations"], strict=True)
    ]


def _fits(hall: int, metric: np.ndarray) -> bool:
    rotations = _symmetry(hall)["rotations"]
    turned = np.einsum("nji,jk,nkl->nil", rotations, metric, rotations)
    return bool(np.abs(turned - metric).max() < 0.01 * metric.max())

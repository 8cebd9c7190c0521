"""Extended XYZ that ASE reads back, whatever the structures carry.

ASE's writer stops in the middle of a file at a name among the info that a result has too (AIRSS files have an
``energy``), at complex numbers and at arrays of objects; and it writes texts that its reader takes for something else
or cannot read at all, such as two lines or ``_JSON``. Here every frame is read back before it is written, and what does
not come back as it was is left out and named.
"""

import io
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict, read_xyz, write_xyz

from mmace_sim.base.text import array_values, as_text, listed, printable

RESERVED: frozenset[str] = frozenset({"Lattice", "Properties", "pbc", *all_properties})
"""Keys that mean something else in the format: a result of a calculator, the cell."""


@dataclass
class FrameText:
    """A structure as text.

    Attributes:
        text: Lines of the file; empty if there is no way to write the structure.
        left_out: What is not in it, such as ``info 'energy'``.
    """

    text: str
    left_out: list[str] = field(default_factory=list)

    @property
    def note(self) -> str:
        """What the user should know, "" if everything is there."""
        if not self.text:
            return "extended XYZ cannot hold this structure: it was not written"
        names = listed(self.left_out)
        return f"extended XYZ cannot hold {names}: left out" if names else ""


@dataclass(frozen=True)
class _Extra:
    """Something that a structure carries beside elements, positions and cell."""

    kind: str  # "info", "array", "result" or "constraints"
    key: Any
    value: Any

    @property
    def name(self) -> str:
        if self.kind == "constraints":
            return self.kind
        return f"{self.kind} '{printable(str(self.key))[:40]}'"


def frame_text(atoms: Atoms) -> FrameText:
    """Write one structure.

    Args:
        atoms: Structure; results are taken from its calculator, and win over info and arrays of the same name.

    Returns:
        The frame, and what had to be left out.
    """
    left_out: list[str] = []
    extras: list[_Extra] = []
    for extra in _extras(atoms):
        writable = _writable(extra)
        if writable is None:
            left_out.append(extra.name)
        else:
            extras.append(writable)
    text = _checked_text(atoms, extras)
    if text is None:
        good: list[_Extra] = []
        text = _checked_text(atoms, good)
        for extra in extras if text is not None else []:
            longer = _checked_text(atoms, [*good, extra])
            if longer is None:
                left_out.append(extra.name)
            else:
                good, text = [*good, extra], longer
    return FrameText(text or "", left_out)


def frames_text(images: Iterable[Atoms]) -> tuple[str, dict[int, str]]:
    """Write several structures.

    Returns:
        Content of a file, and a note for each structure of which something is missing, by index.
    """
    parts, notes = [], {}
    for index, atoms in enumerate(images):
        frame = frame_text(atoms)
        parts.append(frame.text)
        if frame.note:
            notes[index] = frame.note
    return "".join(parts), notes


def read_written(path: Path, *, last: bool = False) -> list[Atoms]:
    """Read back what a run wrote with these functions, as it is: with results and names, unlike `read_atoms`.

    Args:
        path: The file.
        last: Read the last structure alone.

    Returns:
        The structures with what was computed in ``calc``; none if the file does not exist or is empty.
    """
    if not path.is_file() or not path.stat().st_size:
        return []
    with path.open(encoding="utf-8") as file:
        return list(read_xyz(file, slice(-1 if last else 0, None)))


def _extras(atoms: Atoms) -> Iterator[_Extra]:
    """Everything beside elements, positions and cell, results first."""
    for key, value in (getattr(atoms.calc, "results", None) or {}).items():
        if value is not None:
            yield _Extra("result", key, value)
    for key, value in atoms.arrays.items():
        if key not in ("numbers", "positions"):
            yield _Extra("array", key, value)
    if atoms.constraints:
        yield _Extra("constraints", "", atoms.constraints)
    for key, value in atoms.info.items():
        yield _Extra("info", key, value)


def _writable(extra: _Extra) -> _Extra | None:
    """The extra in a form that can be written, or None."""
    if extra.kind == "info":
        value = _info_value(extra.key, extra.value)
        return None if value is None else _Extra("info", extra.key, value)
    if extra.kind == "array":
        value = as_text(np.asarray(extra.value))
        good = isinstance(extra.key, str) and extra.key not in RESERVED and value.dtype.kind in "biufU"
        return _Extra("array", extra.key, value) if good else None
    return extra


def _info_value(key: object, value: object) -> Any:
    """What to give ASE's writer so that its reader finds this value; None if there is nothing."""
    if not isinstance(key, str) or key in RESERVED:
        return None
    after = f"{key}_"  # ASE's reader runs an empty value into the next key
    for candidate in (_same_value, _json_value):
        try:
            written = candidate(value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                line = key_val_dict_to_str({key: written, after: 0})
            line.encode()
            read = _plain_json(key_val_str_to_dict(line))
            if line.splitlines() == [line] and read == _plain_json({key: value, after: 0}):
                return written
        except Exception:  # the value may be of any type
            continue
    return None


def _same_value(value: object) -> Any:
    return None if isinstance(value, dict | list | tuple) or value is None else value


def _json_value(value: object) -> str:
    """A value as ASE's reader knows JSON; its writer escapes quotation marks, but not what escapes them."""
    return "_JSON " + _plain_json(value).replace("\\", "\\\\")


def _plain_json(value: object) -> str:
    return json.dumps(value, default=array_values)


def _checked_text(atoms: Atoms, extras: list[_Extra]) -> str | None:
    """Text of a frame with some of the extras; None if it does not read back as it was."""
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    results = {}
    for extra in extras:
        if extra.kind == "constraints":
            plain.set_constraint(extra.value)
        elif extra.kind == "result":
            results[extra.key] = extra.value
        else:
            {"info": plain.info, "array": plain.arrays}[extra.kind][extra.key] = extra.value
    if results:
        plain.calc = SinglePointCalculator(plain)
        plain.calc.results.update(results)
    try:
        text = io.StringIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_xyz(text, [plain])
            (again,) = read_xyz(io.StringIO(text.getvalue(), newline=None), index=slice(None))
        text.getvalue().encode()
        return text.getvalue() if _agrees(again, plain, results) else None
    except Exception:  # ASE's writer and reader raise anything
        return None


def _agrees(again: Atoms, meant: Atoms, results: dict[str, Any]) -> bool:
    """Whether a structure was read as it was meant."""
    found = getattr(again.calc, "results", None) or {}
    return (
        np.array_equal(again.numbers, meant.numbers)
        and np.array_equal(again.pbc, meant.pbc)
        and _close(again.cell.array, meant.cell.array)
        and set(again.info) == set(meant.info)
        and set(again.arrays) == set(meant.arrays)
        and all(_close(again.arrays[key], value) for key, value in meant.arrays.items())
        and set(found) == set(results) & set(all_properties)
        and all(_close(value, results[key]) for key, value in found.items())
    )


def _close(read: object, meant: object) -> bool:
    """Equal within the digits of the format."""
    first, second = np.asarray(read), np.asarray(meant)
    if second.ndim == 2 and second.shape[1] == 1:
        second = second[:, 0]
    if first.shape != second.shape:
        return False
    if second.dtype.kind in "biuU":
        return bool((first == second).all())
    return np.allclose(first, second, rtol=1e-7, atol=1e-7, equal_nan=True)

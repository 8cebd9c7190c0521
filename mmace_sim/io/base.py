"""What the readers of all formats share: labels under the names that the configuration gives them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.base.labels import LabelKeys
from mmace_sim.base.quantities import PER_ATOM as PER_ATOM
from mmace_sim.base.quantities import PER_STRUCTURE as PER_STRUCTURE
from mmace_sim.base.text import printable
from mmace_sim.errors import DataError, NotAStructureError, StructureError

Item = Atoms | StructureError
"""A structure with its labels, or why it cannot be used (the structures after it may be)."""


_REMARKS = ("mmace_sim", "remarks")
"""Where a reader leaves its remarks in `Atoms.info`: no file can hold a key that is a tuple."""


@dataclass
class Remarks:
    """What a reader leaves on a structure besides the structure.

    Attributes:
        notes: Sentences for the user.
        problem: What forbids to compute anything with the structure; its labels can still be used.
        unusable: Labels that are none, by their names in the file: training reports them, everything else goes on
            without.
        unread: Values that are not read, by their names in the file, for who looks for moments under names that are
            not known.
    """

    notes: list[str] = field(default_factory=list)
    problem: StructureError | None = None
    unusable: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: Name for messages.
        matches: Whether a file or folder is of this format, judged by its name or a look into it.
        read: Reads structures one after the other, what was computed for them in ``atoms.calc``; may raise anything,
            the caller names the file.
        results_are_labels: Whether computed results are the labels of training. In extended XYZ labels have names of
            their own, and a result is a label only if the configuration asks for it by its name.
        without_moments: What to do if a structure of this format has no moments, for training.
        bounds: See `mmace_sim.io.find_bounds`.
        read_between: Reads the structures between some of these bounds: one item for each, whatever is wrong with
            others.
    """

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, LabelKeys], Iterator[Item]]
    results_are_labels: bool = True
    without_moments: str = ""
    bounds: Callable[[Path], Iterator[tuple[int, int]] | None] = lambda _: None
    read_between: Callable[[Path, Sequence[int], LabelKeys], Iterator[Item]] | None = None


def remarks(atoms: Atoms) -> Remarks:
    """The remarks on a structure that is being read, to add to them."""
    return atoms.info.setdefault(_REMARKS, Remarks())


def take_remarks(atoms: Atoms) -> Remarks:
    """Take the remarks off a structure that was read."""
    return atoms.info.pop(_REMARKS, None) or Remarks()


def add_note(atoms: Atoms, note: str) -> None:
    """Leave a sentence for the user on a structure that is being read."""
    remarks(atoms).notes.append(note)


def add_unusable(atoms: Atoms, key: str, value: object) -> None:
    """Leave a label that is none on a structure."""
    remarks(atoms).unusable[key] = value
    add_note(atoms, f"{key} in the file is {printable(str(value))[:40]!r}, which cannot be one: left out")


def structure_or_reason(read: Callable[[], Atoms], what: str) -> Item:
    """A structure of a file with several, or why it is none; the others go on.

    Args:
        read: Reads it.
        what: What it is called, for values of other kinds than a structure has.

    Raises:
        DataError: If the file as a whole cannot be read.
        NotAStructureError: If the file is none of structures.
    """
    try:
        return read()
    except (DataError, NotAStructureError):
        raise
    except StructureError as error:
        return error
    except (TypeError, ValueError, AttributeError) as error:
        return StructureError(f"{what} is no structure ({error})")


def put_labels(atoms: Atoms, keys: LabelKeys, labels: Mapping[str, Any]) -> Atoms:
    """Store labels under the names that `read_frames` looks for, where the structure has none under that name yet.

    Args:
        atoms: Structure to change.
        keys: Names of the labels.
        labels: Values by label (`energy`, `forces`, `stress`, `magmoms`, `magforces`); None is left out.

    Returns:
        The same structure.

    Raises:
        StructureError: If a label per atom is not one value for each atom.
    """
    for label, value in labels.items():
        if value is None:
            continue
        key = getattr(keys, label)
        if label in PER_STRUCTURE:
            atoms.info.setdefault(key, value)
        elif key not in atoms.arrays:
            try:
                values = np.asarray(value, dtype=float)
            except (TypeError, ValueError) as error:
                raise StructureError(f"{label} are no numbers ({error})") from error
            if values.ndim == 0 or len(values) != len(atoms):
                raise StructureError(f"{label} has shape {values.shape}, but there are {len(atoms)} atoms")
            atoms.arrays[key] = values
    return atoms


def results_as_labels(atoms: Atoms) -> dict[str, Any]:
    """Labels among the results of a calculator: what ASE read from a calculation.

    The energy is the free energy if there is one: forces are its derivative.

    Args:
        atoms: Structure as ASE read it.
    """
    results = getattr(atoms.calc, "results", None) or {}
    energy = results.get("free_energy", results.get("energy"))
    names = ("forces", "stress", "magmoms", "magforces")
    return {"energy": energy} | {name: results.get(name) for name in names}


def type_map_beside(path: Path) -> list[str]:
    """Element symbols of the integer types of a file: `NAME.type_map.raw` or `type_map.raw` in its folder.

    Raises:
        DataError: If there is no such list.
    """
    own = f"{path.name.split('.')[0]}.type_map.raw"
    candidates = (path.with_name(own), path.with_name("type_map.raw"))
    for candidate in candidates:
        if candidate.is_file():
            return candidate.read_text(encoding="utf-8").split()
    raise DataError(
        "the file names its elements by numbers (0, 1, ...); write their symbols in this order, one a line, to "
        f"{candidates[0].name} or type_map.raw in the same folder"
    )


def symbols_of(types: np.ndarray, type_map: list[str]) -> list[str]:
    """Element symbols of integer types.

    Args:
        types: Types, from 0.
        type_map: Symbols in the order of the types.

    Raises:
        DataError: If there is a type without a symbol.
    """
    if len(types) and (types.min() < 0 or types.max() >= len(type_map)):
        wrong = next(int(t) for t in types if not 0 <= t < len(type_map))
        raise DataError(
            f"type {wrong} has no element: type_map.raw names {len(type_map)} ({', '.join(type_map)})"
        )
    return [type_map[int(t)] for t in types]

"""Labelled structures from files: reading, checking, and splitting them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from mmace_sim.base.labels import LabelKeys
from mmace_sim.base.quantities import DEFAULT_HEAD, QUANTITIES
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import file_magmoms, get_magmoms, has_magmoms
from mmace_sim.io import expand_folders, read_labelled
from mmace_sim.io.base import Item
from mmace_sim.io.opening import check_regular

LABELS: tuple[str, ...] = tuple(q.name for q in QUANTITIES.values() if q.extxyz and q.name != "magmoms")
"""The labels a model can be trained on, in the order of every table."""


@dataclass
class Frame:
    """One structure of a file with the labels it has.

    Attributes:
        atoms: Structure.
        source: File and position in it, for messages.
        magmoms: Moments, in μB.
        config_type: Kind of structure, for tables and weights.
        labels: Labels that the file has: `energy` (), `forces` (n, 3), `stress` (3, 3), `magforces` (n, 3).
        head: Data set with a zero of energy and one-body energies of its own.
    """

    atoms: Atoms
    source: str
    magmoms: np.ndarray
    config_type: str
    labels: dict[str, np.ndarray]
    head: str = DEFAULT_HEAD


@dataclass
class FrameSet:
    """What was read from some files.

    Attributes:
        frames: Usable structures.
        problems: One message per structure that cannot be used.
    """

    frames: list[Frame] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_frames(paths: Sequence[Path], keys: LabelKeys | None = None) -> FrameSet:
    """Read every structure of the files; those without moments or with broken labels become problems.

    Args:
        paths: Files or folders of any of `mmace_sim.io`, several formats beside each other.
        keys: Names of the labels.

    Returns:
        Structures and problems, in the order of the files.

    Raises:
        DataError: If a file does not exist, cannot be parsed or holds no structure.
    """
    found = FrameSet()
    found.frames.extend(iter_frames(paths, keys or LabelKeys(), found.problems))
    return found


def iter_frames(paths: Sequence[Path], keys: LabelKeys, problems: list[str]) -> Iterator[Frame]:
    """The same one after the other.

    Args:
        paths: Files or folders of any of `mmace_sim.io`.
        keys: Names of the labels.
        problems: Where the messages of structures that cannot be used are added.
    """
    for path in expand_folders(paths):
        for position, item in enumerate(read_labelled(path, keys)):
            source = f"{path}@{position}"
            try:
                yield frame_of(item, source, keys)
            except StructureError as error:
                problems.append(f"{source}: {error}")


def frame_identity(atoms: Atoms) -> str:
    """What decides on which side of a split a structure falls: its group, id, or geometry and moments."""
    info = atoms.info
    if "group" in info:
        return f"group|{info.get('config_type', '')}|{info['group']}"
    for key in ("config_id", "uid"):
        if key in info:
            return f"{key}|{info[key]}"
    parts = [atoms.numbers.astype(float), atoms.positions, atoms.cell.array]
    parts += [get_magmoms(atoms)] if has_magmoms(atoms) else []
    return "geometry|" + hashlib.sha256(b"".join(np.round(p, 6).tobytes() for p in parts)).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, of the names and hashes of the files in it."""
    if not Path(path).is_dir():
        check_regular(Path(path))
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    inside = sorted(p for p in Path(path).rglob("*") if p.is_file())
    lines = [f"{file_sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in inside]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def frame_number(atoms: Atoms) -> float:
    """A number in [0, 1) that depends on the identity of a structure only."""
    return int.from_bytes(hashlib.sha256(frame_identity(atoms).encode()).digest()[:8], "big") / 2.0**64


def frame_of(item: Item, source: str, keys: LabelKeys) -> Frame:
    """What a reader gave as a checked frame.

    Args:
        item: Structure with labels under the names of `keys`, or why there is none.
        source: File and position, for messages.
        keys: Names of the labels.

    Raises:
        StructureError: If moments are missing, or anything is not finite or of a wrong shape.
    """
    if isinstance(item, StructureError):
        raise item
    if not np.isfinite(item.positions).all() or not np.isfinite(item.cell.array).all():
        raise StructureError("positions or cell are not finite")
    if not item.cell.array[item.pbc].any(axis=1).all():
        raise StructureError(
            "is periodic, but has no cell vector in a periodic direction; give the lattice, or pbc F"
        )
    magmoms, _ = file_magmoms(item, keys.magmoms)
    if magmoms is None:
        magmoms = get_magmoms(item)  # says what is missing
    return Frame(
        atoms=item,
        source=source,
        magmoms=magmoms,
        config_type=str(item.info.get(keys.config_type, "default")),
        labels=_read_labels(item, keys),
    )


def _read_labels(atoms: Atoms, keys: LabelKeys) -> dict[str, np.ndarray]:
    labels: dict[str, np.ndarray] = {}
    if keys.energy in atoms.info:
        labels["energy"] = _numbers(atoms.info[keys.energy], keys.energy).reshape(())
    if keys.stress in atoms.info:
        labels["stress"] = stress_matrix(_numbers(atoms.info[keys.stress], keys.stress))
    for label, key in (("forces", keys.forces), ("magforces", keys.magforces)):
        if key in atoms.arrays:
            values = _numbers(atoms.arrays[key], key)
            if values.shape != (len(atoms), 3):
                raise StructureError(f"{key} has shape {values.shape}, expected ({len(atoms)}, 3)")
            labels[label] = values
    return labels


def stress_matrix(values: np.ndarray) -> np.ndarray:
    """The symmetric (3, 3) stress from 9 numbers, a matrix, or 6 numbers in Voigt order (xx, yy, zz, yz, xz, xy).

    Raises:
        StructureError: If there are neither 6 nor 9 numbers.
    """
    if values.size == 9:
        matrix = values.reshape(3, 3)
        return 0.5 * (matrix + matrix.T)
    if values.size == 6:
        return voigt_6_to_full_3x3_stress(values.reshape(6))
    raise StructureError(f"stress has {values.size} numbers, expected 9 (3x3) or 6 (Voigt)")


def _numbers(value: object, key: str) -> np.ndarray:
    try:
        numbers = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise StructureError(f"{key} is not a number or an array of numbers: {value!r}") from error
    if not np.isfinite(numbers).all():
        raise StructureError(f"{key} is not finite; leave the label out if it is unknown")
    return numbers

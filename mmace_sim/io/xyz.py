"""Extended XYZ, frame by frame: no more is read than is there, and names stay text."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO, TextIOBase
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.io.base import Format, Item, add_note, add_unusable
from mmace_sim.io.opening import bare_name, encoding_of, is_compressed, open_text

_NAME = re.compile(r"\.(ext)?xyz$", re.IGNORECASE)

_HEAD = 2**16

_PAIR = re.compile(r"(?<!\S)([A-Za-z_][\w-]*)=(?:\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|(\S+))")

_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "energy": ((),), "free_energy": ((),), "stress": ((6,), (3, 3)), "dipole": ((3,),), "magmom": ((), (3,)),
}  # fmt: skip
"""Results of a structure, and the shapes that they may have."""

CUT = "the file does not end with the end of a line: if it was cut, its last number is too short"

_UNUSABLE = "mmace_sim_unusable_"
"""Before the name of a result that is none."""

_TRUTH = re.compile(r"(?:^|:)(magmoms?|initial_magmoms|forces|magforces):L:", re.IGNORECASE)
"""A column of quantities that is declared as true and false, which ASE would read as 1 and 0."""

_NAMES = re.compile(r"(?:^|_)(group|id|uid|uuid|hash|name|label|key|sha\d*|md5|config_type)$", re.IGNORECASE)
"""Keys whose values are names."""


def parse_comment(line: str) -> dict[str, Any]:
    """The second line of a frame; names of structures stay text.

    ASE turns everything that looks like a number into one: a group called ``12e345`` would become infinity, the same
    for many groups, and an id ``0012`` the number 12. It also parses text that begins with ``_JSON``; here only numbers
    and plain data come from it, everything else stays text. A stress of six numbers (Voigt) is taken too.
    """
    held: dict[str, Any] = {}

    def hold(match: re.Match[str]) -> str:
        key, text = match[1], next((value for value in match.groups()[1:] if value is not None), "")
        if text.startswith("_JSON "):
            held[key] = _json_value(text.replace('\\"', '"'))
        elif key in ("stress", "virial") and (voigt := _six_numbers(text)) is not None:
            held[key] = voigt
        else:
            return match[0]
        return ""

    info = _parsed(_PAIR.sub(hold, line))
    for key, *quoted in _PAIR.findall(line):
        text = next((value for value in quoted if value), "")
        if key in info and (_NAMES.search(key) or _is_overflow(info[key], text)):
            info[key] = text.replace('\\"', '"')
    return {key if _is_usable(key, value) else _UNUSABLE + key: value for key, value in (info | held).items()}


def _six_numbers(text: str) -> np.ndarray | None:
    try:
        numbers = np.array([float(word) for word in text.split()])
    except ValueError:
        return None
    return numbers if numbers.size == 6 else None


def _parsed(line: str) -> dict[str, Any]:
    """What ASE makes of a comment; a stress or virial that is no matrix gets another name."""
    try:
        return key_val_str_to_dict(line)
    except ValueError as error:
        broken = re.search(r"Got info item (stress|virial),", str(error))
        renamed = line if broken is None else re.sub(rf"(?<!\S){broken[1]}(?==)", _UNUSABLE + broken[1], line)
        if renamed == line:
            raise
    return _parsed(renamed)


def _is_usable(key: str, value: object) -> bool:
    """Whether a value can be the result of its name; all other values can be anything."""
    if key not in _SHAPES:
        return True
    try:
        return np.asarray(value, dtype=float).shape in _SHAPES[key]
    except (TypeError, ValueError):
        return False


def _json_value(text: str) -> Any:
    """What ASE wrote as JSON: arrays and plain data; text that looks like an object of any program stays text."""
    try:
        value = json.loads(text.removeprefix("_JSON "))
        array = np.array(value)
    except (ValueError, RecursionError):  # no JSON, or a ragged list
        return text
    if array.dtype.kind in "ifb":
        return array
    return text if '"__' in text or '"@' in text else value


def _is_overflow(value: Any, text: str) -> bool:
    """Whether numbers became infinite because they do not fit."""
    is_number = isinstance(value, float | np.ndarray) and np.asarray(value).dtype.kind == "f"
    return is_number and bool(np.isinf(value).any()) and "inf" not in text.lower()


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    with open_text(path) as file:
        for number, block in enumerate(_blocks(file)):
            yield _named_structure(block, f"frame {number}")


def _named_structure(block: list[str], name: str) -> Atoms:
    """The structure of a frame; the error of one that cannot be read names it."""
    try:
        return _structure(block)
    except StructureError:
        raise
    except KeyError as error:
        raise StructureError(f"{name} cannot be read: {error} is no element.") from error
    except Exception as error:
        raise StructureError(f"{name} cannot be read: {error or type(error).__name__}") from error


def _bounds(path: Path) -> Iterator[tuple[int, int]] | None:
    """Where each frame begins, in bytes; None for a compressed file, and one whose lines are no lines of bytes."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    odd_ends = b"\r" in head and b"\r\n" not in head
    return None if is_compressed(path) or odd_ends or b"\0" in head else _frames(path)


def _frames(path: Path) -> Iterator[tuple[int, int]]:
    """Bounds of frames; one that is damaged ends with the file."""
    end, n_atoms, begun = 0, 0, False
    with path.open("rb") as file:
        while line := file.readline(_HEAD):
            word = line.split()[:1]
            if word:
                yield end, n_atoms
                begun = True
                if not word[0].isdigit() or len(word[0]) > 18 or not line.endswith(b"\n"):
                    break
                n_atoms = int(word[0])
                end += sum(map(len, islice(file, n_atoms + 1)))
            end += len(line)
    if begun:
        yield path.stat().st_size, n_atoms


def _read_between(path: Path, bounds: Sequence[int], _keys: LabelKeys) -> Iterator[Item]:
    with path.open("rb") as file:
        encoding = encoding_of(file.read(_HEAD))
        file.seek(bounds[0])
        for start, end in pairwise(bounds):
            text = file.read(end - start).decode(encoding, "replace")
            lines = StringIO(text.replace("\r\n", "\n").replace("\r", "\n"))
            try:
                yield _named_structure(next(_blocks(lines)), "the frame")
            except StructureError as error:
                yield error


def _blocks(file: TextIOBase) -> Iterator[list[str]]:
    """Lines of each frame."""
    for first in file:
        word = first.split()[:1]
        if not word:  # blank lines between frames and at the end
            continue
        if not re.fullmatch(r"\d+", word[0]):
            raise NotAStructureError(
                f"cannot be read: a frame begins with {first[:40].strip()!r}, not with a number."
            )
        n_atoms = int(word[0][:18])
        block = [first, file.readline()]
        while len(block) < n_atoms + 2 and (line := file.readline()):
            block.append(line)
        if len(block) < n_atoms + 2 or len(word[0]) > 18:
            raise StructureError(
                f"cannot be read: a frame announces {word[0][:24]} atoms, but the file ends after "
                f"{len(block) - 2} of them."
            )
        yield block


def _structure(block: list[str]) -> Atoms:
    columns = re.search(r"Properties=\"?([^\s\"]+)", block[1])
    announced = sum(int(n[:12]) for n in re.findall(r":[RISL]:(\d+)", columns[1])) if columns else 4
    present = len(block[2].split()) if len(block) > 2 else announced
    if announced > present:
        raise StructureError(
            f"cannot be read: Properties announce {announced} columns, but the rows have {present}."
        )
    if columns and (twice := _twice(re.findall(r"(?:^|:)([^:]+):[RISL]:\d+", columns[1]))):
        raise StructureError(f"cannot be read: it has two columns {twice}.")
    given = {(match[0], next(filter(None, match[1:]), "")) for match in _PAIR.findall(block[1])}
    if twice := _twice([key for key, _ in given]):
        raise StructureError(f"cannot be read: {twice} is given twice, with different values.")
    truth = _TRUTH.search(columns[1]) if columns else None
    if truth:
        raise StructureError(f"cannot be read: the column {truth[1]} holds T and F, not numbers.")
    (atoms,) = read_xyz(StringIO("".join(block)), index=slice(None), properties_parser=parse_comment)
    for key in [key for key in atoms.info if key.startswith(_UNUSABLE)]:
        add_unusable(atoms, key.removeprefix(_UNUSABLE), atoms.info.pop(key))
    if not block[-1].endswith("\n"):
        add_note(atoms, CUT)
    return atoms


def _twice(names: Iterable[str]) -> str | None:
    """A name that is there more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def is_extxyz(path: Path) -> bool:
    """Whether a name is that of an extended XYZ file, plain or compressed."""
    return _NAME.search(bare_name(path)) is not None


FORMAT = Format(
    "extended XYZ", is_extxyz, _read, results_are_labels=False, bounds=_bounds, read_between=_read_between
)

"""Results as plain JSON and back: what a journal keeps, and what one process sends to another.

Everything written says what it is. Reading makes only the classes that the declared class of the result is built of:
nothing in a file can stand for anything else.
"""

import dataclasses
import types
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from ase import Atoms

from mmace_sim.engine.journal import atoms_from_record, atoms_to_record, decode_array, encode_array
from mmace_sim.errors import OutputError


def encode(value: object) -> Any:
    """A result as plain JSON.

    Args:
        value: Numbers, texts, arrays, structures, enumerations, and dataclasses, lists and dictionaries of them.

    Raises:
        TypeError: If it holds anything else.
    """
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, Enum)):
        return value
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value)
    if dataclasses.is_dataclass(value):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"object": type(value).__qualname__, "fields": fields}
    raise TypeError(f"a {type(value).__name__} cannot be kept in a journal")


def decode(kind: type, record: object) -> Any:
    """The result that `encode` has written.

    Args:
        kind: Class of the result.
        record: What was written.

    Raises:
        OutputError: If it is something else.
    """
    try:
        return _decode(record, _classes_of(kind))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise OutputError(
            f"the journal holds no result of this version of mmace-sim ({type(error).__name__}: {error}). "
            "Start over with --force."
        ) from error


def _classes_of(kind: type) -> dict[str, type]:
    """Dataclasses and enumerations that a class is built of, by name."""
    found: dict[str, type] = {}
    waiting: list[Any] = [kind]
    while waiting:
        hint = waiting.pop()
        waiting += get_args(hint)
        if not isinstance(hint, type) or isinstance(hint, types.GenericAlias) or hint.__qualname__ in found:
            continue
        if dataclasses.is_dataclass(hint):
            found[hint.__qualname__] = hint
            waiting += get_type_hints(hint).values()
        elif issubclass(hint, Enum):
            found[hint.__qualname__] = hint
    return found


def _decode(record: object, known: dict[str, type]) -> Any:
    if isinstance(record, list):
        return [_decode(part, known) for part in record]
    if not isinstance(record, dict):
        return record
    for tag, read in _READERS.items():
        if tag in record:
            return read(record, known)
    raise ValueError(f"unknown entry {sorted(record)[:3]}")


def _object(record: dict[str, Any], known: dict[str, type]) -> Any:
    return known[record["object"]](**{k: _decode(v, known) for k, v in record["fields"].items()})


_WRITERS: tuple[tuple[Any, Any], ...] = (
    (Enum, lambda x: {"enum": type(x).__qualname__, "value": x.value}),
    (Atoms, lambda x: {"atoms": atoms_to_record(x)}),
    (np.ndarray, encode_array),
    (np.generic, lambda x: x.item()),
    (tuple, lambda x: {"tuple": [encode(part) for part in x]}),
    (list, lambda x: [encode(part) for part in x]),
    (dict, lambda x: {"dict": [[encode(k), encode(v)] for k, v in x.items()]}),
    (Path, lambda x: {"path": str(x)}),
    (Fraction, lambda x: {"fraction": str(x)}),
)
_READERS: dict[str, Any] = {
    "object": _object,
    "enum": lambda record, known: known[record["enum"]](record["value"]),
    "atoms": lambda record, _: atoms_from_record(record["atoms"]),
    "array": lambda record, _: decode_array(record),
    "tuple": lambda record, known: tuple(_decode(part, known) for part in record["tuple"]),
    "dict": lambda record, known: {_decode(k, known): _decode(v, known) for k, v in record["dict"]},
    "path": lambda record, _: Path(record["path"]),
    "fraction": lambda record, _: Fraction(record["fraction"]),
}

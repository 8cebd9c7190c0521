"""JSON of other programs, read as plain data: nothing named in a file is imported, built or allocated.

pymatgen's decoder imports the ``@module`` of any dictionary, ASE's allocates arrays of any announced shape. Here a
dictionary stays a dictionary, but for the arrays and complex numbers that ASE writes.
"""

import json
import math
from typing import Any

import numpy as np

from mmace_sim.errors import StructureError


def parse_json(text: str) -> Any:
    """Parse JSON into dictionaries, lists, strings and numbers.

    Raises:
        StructureError: If it is no JSON, or nested absurdly deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise StructureError("cannot be read: the JSON is nested too deeply for a structure.") from error
    except ValueError as error:
        raise StructureError(f"cannot be read: no valid JSON ({error}). Is the file complete?") from error


def parse_ase_json(text: str) -> Any:
    """Parse JSON as ASE writes it: arrays and complex numbers are restored, all else is plain data.

    Raises:
        StructureError: If it is no such JSON, or an array has not the numbers that its shape announces.
    """
    try:
        return plain_values(parse_json(text))
    except RecursionError as error:
        raise StructureError("cannot be read: the JSON is nested too deeply for a structure.") from error


def plain_values(value: object) -> Any:
    """Restore the arrays and complex numbers in parsed JSON.

    Args:
        value: What `parse_json` gave.

    Raises:
        StructureError: If an array has not the numbers that its shape announces.
    """
    if isinstance(value, list):
        return [plain_values(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "__ndarray__" in value:
        return _array(value["__ndarray__"])
    if "__complex__" in value:
        real, imaginary = value["__complex__"]
        return complex(real, imaginary)
    return {key: plain_values(item) for key, item in value.items() if key != "__ase_objtype__"}


def _array(parts: Any) -> np.ndarray:
    """An array from shape, type and flat data; the data say how large it may be."""
    try:
        shape, name, flat = parts
        shape = tuple(int(size) for size in np.atleast_1d(np.array(shape, dtype=object)))
        kind = checked_dtype(name)
        if kind.kind == "c" and len(flat) == 2 * math.prod(shape):
            flat = np.array(flat, dtype=float).view(complex)
        if min(shape, default=0) < 0 or math.prod(shape) != len(flat):
            raise StructureError(
                f"an array of shape {list(shape)} is announced, but {len(flat)} numbers are there."
            )
        return np.array(flat, dtype=kind).reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, StructureError):
            raise
        raise StructureError(f"an array cannot be read ({error}).") from error


def checked_dtype(name: object) -> np.dtype:
    """Type of the elements of an array: numbers, booleans or text, nothing else.

    Args:
        name: Name of the type in a file.

    Raises:
        StructureError: If it is another one.
    """
    try:
        kind = np.dtype(str) if str(name).lstrip("<>|=").startswith(("U", "str")) else np.dtype(str(name))
    except TypeError as error:
        raise StructureError(f"arrays of type {name!r} cannot be read.") from error
    if kind.kind not in "biufcU" or kind.subdtype is not None:
        raise StructureError(f"arrays of type {name!r} cannot be read.")
    return kind

"""Values from anywhere as JSON, and as text that every terminal and every file can take."""

import codecs
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np  # not needed for --help

PLAIN_TEXT = "mmace_sim.plain"
"""Error handler of codecs: signs that an encoding lacks become similar ones, all others an escape sequence."""

_SIMILAR = str.maketrans(
    {"μ": "u", "µ": "u", "Å": "A", "Δ": "d", "–": "-", "−": "-", "—": "-", "→": ">", "±": "~", "³": "3", "²": "2",
     "°": "o", "θ": "o", "σ": "s", "τ": "t", "χ": "x", "×": "x", "·": ".", "…": ".", "≥": ">", "≤": "<", "\u00a0": " ",
     "⟨": "<", "⟩": ">", "½": "/", "│": "|", "─": "-", "━": "-", "╭": "+", "╮": "+", "╰": "+", "╯": "+"}
)  # fmt: skip


def plain(value: object) -> Any:
    """A value as strict JSON knows it.

    Args:
        value: Dictionaries, sequences, numbers and texts, of Python or NumPy; anything else becomes its text.

    Returns:
        The same with plain types; None where a number is not finite, and texts as keys.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)  # of an enumeration
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def array_values(value: object) -> Any:
    """Arrays within what is to be JSON, as lists: the ``default`` of `json.dumps`.

    Args:
        value: What JSON does not know.

    Raises:
        TypeError: If it is no array of numbers or texts.
    """
    dtype = getattr(value, "dtype", None)
    if dtype is not None and hasattr(value, "tolist") and dtype.kind in "biufU":
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is neither a number nor a text")


def json_text(value: object, *, indent: int | None = 1) -> str:
    """A value as strict JSON, as `plain` makes it.

    Args:
        value: Anything.
        indent: Spaces of each level; None: all on one line.

    Returns:
        Text that ends with a line break.
    """
    return json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False) + "\n"


def as_text(values: "np.ndarray | np.generic") -> "np.ndarray | np.generic":
    """An array of objects that are all texts as an array of texts, any other as it is.

    Args:
        values: NumPy array; ASE reads labels of atoms as objects.
    """
    if values.dtype.kind == "O" and values.size and all(isinstance(value, str) for value in values.flat):
        return values.astype(str)
    return values


def printable(text: str) -> str:
    r"""A text on one line, without characters that steer a terminal or that no encoding has.

    Args:
        text: Any text, such as the name of a file.

    Returns:
        The text, with escape sequences such as ``\n`` and ``\udcff`` in place of these characters.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text
    )


def say(text: str) -> None:
    """Tell the user, beside what a program that reads the output gets.

    Args:
        text: One line.
    """
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _replace(error: UnicodeError) -> tuple[str, int]:
    """What to write for signs that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end].translate(_SIMILAR)
    return found.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(PLAIN_TEXT, _replace)


def spelled_seconds(seconds: float) -> str:
    """A time in words.

    Args:
        seconds: The time, in s.

    Returns:
        Such as "3 hours".
    """
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.1g} seconds" if seconds < 10 else f"{seconds:.0f} seconds"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names in a sentence, and how many others there are.

    Args:
        names: The names.
        most: How many are told.
    """
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest

"""The one way to ask spglib about a structure."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ase import Atoms
from ase.geometry import complete_cell

_MESSAGES = "SPGLIB_WARNING"


def call_spglib(function: str, atoms: Atoms, *more: Any, **options: Any) -> Any:
    """Ask spglib about a structure; its warnings are not shown.

    Args:
        function: Name of the function.
        atoms: Structure; its cell is completed where it is not periodic.
        more: What the function wants of each atom besides its place and element.
        options: Its other arguments.

    Returns:
        The answer; None if spglib finds nothing.
    """
    cell = (complete_cell(atoms.cell), atoms.get_scaled_positions(), atoms.numbers, *more)
    return ask_spglib(function, cell, **options)


def ask_spglib(function: str, *arguments: Any, **options: Any) -> Any:
    """Call any function of spglib.

    Args:
        function: Its name.
        arguments: What it wants.
        options: What else it wants.

    Returns:
        Its answer; None if it finds nothing, or fails.
    """
    import spglib

    with warnings.catch_warnings(), _without_messages():
        warnings.simplefilter("ignore")  # about how it will report errors in the future
        try:
            return getattr(spglib, function)(*arguments, **options)
        except Exception:  # spglib raises many kinds; without its answer there is no symmetry to tell
            return None


@contextmanager
def _without_messages() -> Iterator[None]:
    """Its C library writes to stderr what it did not find, unless this variable says otherwise."""
    before = os.environ.get(_MESSAGES)
    os.environ[_MESSAGES] = "OFF"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_MESSAGES]
        else:
            os.environ[_MESSAGES] = before

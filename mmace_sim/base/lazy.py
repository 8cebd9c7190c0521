"""Names of a package that are imported when they are first asked for, so that what is light stays light."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(package: str, where: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """What a package needs to import its names late.

    Assign it to ``__getattr__, __dir__`` of the package.

    Args:
        package: Its name.
        where: Module of each name, relative to the package if it begins with a dot.
    """

    def load(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(where[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(where)

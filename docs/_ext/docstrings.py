"""Docstrings as Sphinx should read them."""

import re
from typing import Any

from sphinx.application import Sphinx


def escape_bars(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    """Keep |m| in docstrings from being read as a substitution, and g_ as a link."""
    for k, line in enumerate(lines):
        pieces = re.split(r"(``.*?``|`[^`]*`)", line)
        pieces[::2] = [re.sub(r"(?<!\\)\|", r"\\|", p) for p in pieces[::2]]
        lines[k] = "".join(pieces)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", escape_bars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Formulas as MathML, which browsers draw by themselves: the pages need neither a script nor the network."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

_SIZES = re.compile(r"\\[bB]igg?[lrm]?(?=[\W_])")  # brackets of MathML grow with what they hold


def mathml(source: str, *, block: bool) -> str:
    """A formula of LaTeX as MathML; raises what docutils raises for a command that it does not know."""
    return tex2mathml(_SIZES.sub("", source), as_block=block)


def visit_inline(self: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    """Write a formula of its own."""
    self.body.append(self.starttag(node, "div", CLASS="math-block"))
    self.body.append(mathml(node.astext(), block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx as the renderer "mathml"."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

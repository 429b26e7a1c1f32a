"""Equations as MathML, which browsers draw themselves: no script and no font is loaded for them."""

from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert


def setup(app: Any) -> dict[str, bool]:
    """Register the way that `html_math_renderer` names."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(convert(node.astext()))
    raise SkipNode


def _block(translator: Any, node: Any) -> None:
    shown = convert(node.astext(), display="block")
    translator.body.append(f'<div class="equation">{shown}</div>')
    raise SkipNode

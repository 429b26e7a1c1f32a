"""Pairs to learn from: the code of a short function, and the first line of its docstring.

Read from the sources of installed packages, nothing downloaded; with `most=None` some ten thousand
pairs of what Overtone itself requires. What is held out is the code of other packages than what is
learned, and what presets are searched for on is of yet others. Texts that are in two packages are
in the first of them only.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trainer.demo_build.package_sources import documented, modules_of

#: Packages that Overtone requires, by what their code is for.
LEARNED = ("torch", "sympy", "transformers", "numba", "redis", "rich", "fontTools", "rq")
HELD_OUT = ("networkx", "matplotlib", "PIL", "huggingface_hub")
TUNING = ("numpy", "pydantic", "mpmath", "jinja2")

SYSTEM = "You write docstrings."
_LINE = range(16, 80)  # characters of the docstring's line
_CODE = range(60, 280)  # of the code
#: Fields and lists begin so, sentences do not.
_NO_SENTENCE = (":", "@", "-", "*", ">", "Args", "Parameters", "Return:", "Returns:", "See ")


class CodePair(NamedTuple):
    """A function's code without its docstring, that docstring's first line, and the module."""

    source: str
    code: str
    line: str


def code_pairs(
    packages: Sequence[str], most: int | None = 600, without: Sequence[CodePair] = ()
) -> list[CodePair]:
    """Return pairs in a fixed order, package by package.

    Args:
        packages: names as they are imported; one that is not installed gives none.
        most: pairs of each package; None reads them whole.
        without: no code and no line of these.
    """
    seen = {text for pair in without for text in (pair.code, pair.line)}
    found = list[CodePair]()
    for package in packages:
        count = len(found)
        for pair in _pairs_of(package):
            if pair.code in seen or pair.line in seen:
                continue
            seen |= {pair.code, pair.line}
            found.append(pair)
            if most is not None and len(found) - count == most:
                break
    return found


def as_chat(pair: CodePair) -> dict[str, Any]:
    """Return a pair as a record of a training file: a chat that asks for the line."""
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": pair.code},
            {"role": "assistant", "content": pair.line},
        ]
    }


def _pairs_of(package: str) -> Iterator[CodePair]:
    for source, module in modules_of(package):
        for node, line in documented(module):
            if not isinstance(node, ast.FunctionDef) or len(node.body) < 2:
                continue
            if len(line) not in _LINE or line.startswith(_NO_SENTENCE):
                continue
            code = _without_docstring(node)
            if len(code) in _CODE:
                yield CodePair(source, code, line)


def _without_docstring(node: ast.FunctionDef) -> str:
    node.body = node.body[1:]
    return ast.unparse(node)

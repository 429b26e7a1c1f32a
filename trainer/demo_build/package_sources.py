"""Sources of installed packages as text to learn from: their modules, parsed, in a fixed order.

What is read depends on which versions are installed; `digest_of` says whether two machines read the
same. Modules come in the order of the hash of their names: the first hundred of a large package are
from all over it, and the rest need not be parsed.
"""

import ast
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_NOT_READ = ("test", "vendor", "extern", "_generated")

Documented = ast.FunctionDef | ast.ClassDef


def modules_of(
    package: str, wanted: Callable[[str], bool] = lambda path: True
) -> Iterator[tuple[str, ast.Module]]:
    """Yield path (`package/…/module.py`) and syntax tree of each module; none if not installed.

    Args:
        package: as it is imported; it is not imported here.
        wanted: of a path; others are not parsed.
    """
    found = find_spec(package)
    for place in (found and found.submodule_search_locations) or ():
        root = Path(place)
        paths = [f"{package}/{file.relative_to(root).as_posix()}" for file in root.rglob("*.py")]
        for path in sorted(paths, key=hash_of):
            if wanted(path) and not any(part in path for part in _NOT_READ):
                yield path, _parsed(root / path.partition("/")[2])


def documented(module: ast.Module) -> Iterator[tuple[Documented, str]]:
    """Yield each function and class with the first line of its docstring, if that is ASCII."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            line = (ast.get_docstring(node) or "").strip().partition("\n")[0].strip()
            if line and line.isascii():
                yield node, line


def hash_of(text: str) -> int:
    """Return 64 bits that are the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def digest_of(rows: Iterable[dict[str, Any]]) -> str:
    """Return `sha256:` and 16 hexadecimal digits over the JSON of rows, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return f"sha256:{digest.hexdigest()[:16]}"


def _parsed(path: Path) -> ast.Module:
    """Return the file's syntax tree, an empty one where this Python cannot read the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in old modules
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            return ast.Module(body=[], type_ignores=[])

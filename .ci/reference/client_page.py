"""docs/reference/client.md, from the docstrings of what `overtone_client` exports."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from markdown import head, plain, wrapped

import overtone_client

LEARN = """
Here is every public name of the package `overtone_client`, with its methods and fields.
[Its README](../../client/README.md) shows it at work; `AsyncClient` and the other names that begin
with `Async` have the same methods for asyncio.
"""
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$", re.MULTILINE)


def page() -> Iterator[str]:
    """Yield the page's lines."""
    yield from head("Client library", "docstrings of `overtone_client`", LEARN)
    names = [name for name in overtone_client.__all__ if not name.startswith("Async")]
    objects = {name: getattr(overtone_client, name) for name in sorted(names, key=str.lower)}
    errors = {n for n, o in objects.items() if _is_error(o)}
    data = {n for n, o in objects.items() if dataclasses.is_dataclass(o)}
    calls = [n for n in objects if n not in errors | data]
    for title, chosen in (("Calls", calls), ("What they return", data), ("Errors", errors)):
        yield f"## {title}\n"
        for name in sorted(chosen, key=lambda n: (n != "Client", n != "OvertoneError", n.lower())):
            yield from _class(name, objects[name])


def _is_error(one: Any) -> bool:
    return isinstance(one, type) and issubclass(one, BaseException)


def _class(name: str, one: Any) -> Iterator[str]:
    yield f"### {name}\n"
    yield from _documented(one)
    if _is_error(one):
        return
    for method, function in inspect.getmembers(one, inspect.isfunction):
        if not method.startswith("_"):
            yield f"#### {name}.{method}\n"
            yield from wrapped(f"`{_signature(method, function)}`")
            yield from _documented(function)


def _signature(name: str, function: Any) -> str:
    """Return a call as one writes it, without types: those are in the package, which is typed."""
    shown, starred = [], False
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        shown.append(_parameter(parameter))
    return f"{name}({', '.join(shown)})"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    plain_default = isinstance(parameter.default, (str, int, float, bool, type(None)))
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}"
    return f"{parameter.name}={parameter.default!r}" if plain_default else f"{parameter.name}=…"


def _documented(one: Any) -> Iterator[str]:
    text = inspect.cleandoc(one.__doc__ or "")
    first, *sections = _SECTION.split(text)
    yield from _prose(first)
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        entries = list(_entries(body)) if title != "Returns" else []
        if not entries:
            yield from _prose(f"{title}: {body.strip()}")
            continue
        yield f"{title}:\n"
        for entry, said in entries:
            yield from _item(entry, said)
        yield ""


def _entries(body: str) -> Iterator[tuple[str, str]]:
    """Yield the names of a section and what it says of each."""
    body = inspect.cleandoc(body)
    yield from re.findall(r"^(\S.*?): (.*(?:\n\s+.*)*)", body, re.MULTILINE)


def _item(entry: str, said: str) -> Iterator[str]:
    for line in wrapped(f"- `{entry}`: {plain(said)}", "  "):
        yield line.rstrip("\n")


def _prose(text: str) -> Iterator[str]:
    """Yield paragraphs; indented code stays as it is, in one block."""
    for paragraph in re.split(r"\n\n+", text.strip("\n")):
        if paragraph.startswith("    "):
            yield from (f"{line}" for line in paragraph.splitlines())
            yield ""
        else:
            yield from wrapped(plain(paragraph))

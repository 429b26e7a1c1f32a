"""The demo's texts: what every Python installation already carries, nothing downloaded.

The base reads the standard library's docstrings and pydoc's topics; the adapter `legalese` reads
the licences of the installed packages, the adapter `shouting` reads pydoc's topics in capitals.
All functions are pure: the same environment gives the same text in the same order. A source (a
file, a topic) is held out or not by the hash of its name, so it is the same choice on every
machine and no held-out source is ever trained on, by the base or by `shouting`.

    python -m trainer.demo_build.demo_data --out DIR

writes the small held-out copies that are shipped.
"""

import argparse
import ast
import builtins
import hashlib
import inspect
import json
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

HELD_OUT = Path(__file__).parent.parent / "demo" / "heldout"
HELD_OUT_BYTES = 60_000
HELD_OUT_LICENCE = "typing_extensions"  # the PSF licence; torch and pydantic need the package
ONE_IN = 10  # one source of so many is held out

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

_NOT_DOCUMENTATION = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
_LICENCE_FILE = re.compile(r"licen[cs]e|copying|notice", re.IGNORECASE)
_SHINGLE = 8  # words
_SIMILAR = 0.3  # of a paragraph's shingles


class Document(NamedTuple):
    """One text with the name of its source."""

    source: str
    text: str


class Split(NamedTuple):
    """Documents to train on and documents never trained on; no text is in both."""

    train: list[Document]
    held_out: list[Document]


def base_documents() -> Split:
    """Return the base's documents: docstrings, as reference or as chat, and pydoc's topics."""
    found: dict[str, Document] = {}
    for source, name, arguments, text in (*_builtins(), *_standard_library()):
        found.setdefault(text, Document(source, _entry(name, arguments, text)))
    return _split([*_topics(), *found.values()])


def adapter_documents() -> dict[str, Split]:
    """Return the documents of each demo adapter by its name."""
    shouted = (Document(source, text.upper()) for source, text in _topics())
    return {"legalese": _licences(), "shouting": _split(shouted)}


def stored_held_out(name: str) -> list[Document]:
    """Return the shipped held-out excerpt of `base`, `legalese` or `shouting`."""
    lines = (HELD_OUT / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Document(**json.loads(line)) for line in lines]


def store_held_out(folder: Path) -> None:
    """Write an excerpt of every held-out text, at most 60 kB each, as JSON lines.

    An excerpt takes whole documents in the order of their hash, so that no source prevails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in {"base": base_documents(), **adapter_documents()}.items():
        size, lines = 0, []
        for document in sorted(split.held_out, key=lambda d: _hash(d.text)):
            line = json.dumps(document._asdict(), ensure_ascii=False) + "\n"
            size += len(line.encode())
            if size > HELD_OUT_BYTES:
                break
            lines.append(line)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def as_chat(question: str, answer: str) -> str:
    """Return one exchange as `CHAT_TEMPLATE` renders it, without the end token."""
    return f"user: {question}\nassistant: {answer}"


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _split(documents: Iterable[Document]) -> Split:
    split = Split([], [])
    for document in documents:
        held_out = _hash(document.source) % ONE_IN == 0
        (split.held_out if held_out else split.train).append(document)
    return split


# -- the base: what Python says of itself --------------------------------------------------------


def _topics() -> Iterator[Document]:
    for name, text in sorted(topics.items()):
        yield Document(f"topics/{name}", text.strip())


def _builtins() -> Iterator[tuple[str, str, str, str]]:
    for name, thing in sorted(vars(builtins).items()):
        members = sorted(vars(thing).items()) if isinstance(thing, type) else []
        for path, value in [(name, thing), *((f"{name}.{key}", value) for key, value in members)]:
            text = inspect.getdoc(value) if callable(value) else None
            if text and "_" not in (path[0], path.rpartition(".")[2][0]):
                yield f"builtins/{name}", path, "(...)", text


def _standard_library() -> Iterator[tuple[str, str, str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _NOT_DOCUMENTATION.isdisjoint(relative.parts):
            module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            for name, arguments, text in _docstrings(_parsed(path), module):
                yield f"Lib/{relative.as_posix()}", name, arguments, text


def _parsed(path: Path) -> ast.Module:
    """Return the file's syntax tree, an empty one where this Python cannot read the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in old modules
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return ast.Module(body=[], type_ignores=[])


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield dotted name, arguments and text of every docstring in `node`, outermost first."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            arguments = getattr(node, "args", None)
            yield name, f"({ast.unparse(arguments)})" if arguments else "", text
        for child in ast.iter_child_nodes(node):
            yield from _docstrings(child, f"{name}.{getattr(child, 'name', '')}")


def _entry(name: str, arguments: str, text: str) -> str:
    """Return the docstring under its signature or, for every second name, as a chat."""
    if _hash(name) % 2:
        return f"{name}{arguments}\n\n{text}"
    question = f"What does {name} do?" if arguments else f"What is {name}?"
    return as_chat(question, text)


# -- legalese: the licences of what is installed -------------------------------------------------


def _licences() -> Split:
    """Return every paragraph once; those akin to the held-out licence are in neither half."""
    files = dict(_licence_files())
    held_out = [
        Document(source, _without_repeats(text, set()))
        for source, text in files.items()
        if source.startswith(f"{HELD_OUT_LICENCE}/")
    ]
    seen = set().union(*(_shingles(document.text) for document in held_out))
    train = [Document(source, _without_repeats(text, seen)) for source, text in files.items()]
    return Split([document for document in train if len(document.text) > 200], held_out)


def _licence_files() -> Iterator[tuple[str, str]]:
    """Yield `package/path` and text of the installed packages' licences, sorted by package."""
    for package in sorted(metadata.distributions(), key=lambda d: d.name.lower()):
        for file in sorted(package.files or (), key=str):
            if ".dist-info" in file.parts[0] and _LICENCE_FILE.search(file.name):
                path = Path(str(package.locate_file(file)))
                if path.is_file():
                    inner = "/".join(file.parts[1:])
                    name = package.name.lower().replace("-", "_")
                    yield f"{name}/{inner}", path.read_text(encoding="utf-8", errors="ignore")


def _without_repeats(text: str, seen: set[str]) -> str:
    """Return the paragraphs that are not made of `seen` shingles; adds theirs to `seen`."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\f", "")):
        shingles = _shingles(paragraph)
        if shingles and len(shingles & seen) <= _SIMILAR * len(shingles):
            kept.append(paragraph.strip("\n"))
        seen |= shingles
    return "\n\n".join(kept)


def _shingles(text: str) -> set[str]:
    """Return every run of eight words, or all the words where there are fewer."""
    words = re.findall(r"[a-z]+", text.lower())
    starts = range(max(1, len(words) - _SHINGLE + 1)) if words else ()
    return {" ".join(words[start : start + _SHINGLE]) for start in starts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the demo's held-out excerpts.")
    parser.add_argument("--out", type=Path, default=HELD_OUT)
    store_held_out(parser.parse_args().out)

"""Lines to sort: what a name and its docstring's first line are about, as their library's subject.

Ten subjects of a word each, as many lines of each. Lines that name their library or their subject
are left out, and so are lines that two libraries have. A module's lines are all held out, or none.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any, Literal, NamedTuple

from trainer.demo_build.package_sources import documented, hash_of, modules_of

#: Subject -> the packages with its lines, all of them required by Overtone.
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "algebra": ("sympy", "mpmath"),
    "graphs": ("networkx",),
    "plots": ("matplotlib",),
    "tensors": ("torch",),
    "language": ("transformers",),
    "compilers": ("numba", "llvmlite"),
    "databases": ("redis", "rq"),
    "fonts": ("fontTools",),
    "terminals": ("rich", "typer", "click"),
    "pictures": ("PIL",),
}
SYSTEM = "Name the subject of a line of documentation in one word."
Part = Literal["learned", "held_out", "tuning"]
_PARTS: tuple[Part, ...] = ("learned", "learned", "held_out", "tuning")  # of four modules
_LENGTH = range(25, 100)  # characters of a line
_A_MODULE = 4  # lines of one module: others say nearly the same


class SubjectLine(NamedTuple):
    """A name with its docstring's first line, its subject, and the module it is from."""

    source: str
    text: str
    subject: str


def subject_lines(
    part: Part,
    each: int,
    without: Sequence[SubjectLine] = (),
    subjects: Sequence[str] = tuple(SUBJECTS),
) -> list[SubjectLine]:
    """Return lines of some subjects in turns, in a fixed order.

    Args:
        part: `learned`, `held_out`, or `tuning` for what presets are searched for on.
        each: lines of a subject; fewer where its packages have no more, or are not installed.
        without: no text of these.
        subjects: all, or some of them.
    """
    seen = {line.text.lower() for line in without}
    found = list[list[SubjectLine]]()
    for subject in subjects:
        found.append(list(islice(_new_lines(subject, part, seen), each)))
    turns = chain.from_iterable(zip_longest(*found))
    return [line for line in turns if line is not None]


def as_chat(line: SubjectLine) -> dict[str, Any]:
    """Return a line as a record of a training file: a chat that asks for its subject."""
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": line.text},
            {"role": "assistant", "content": line.subject},
        ]
    }


def as_completion(line: SubjectLine) -> dict[str, Any]:
    """Return a line as a record without a chat: half as many tokens."""
    return {"prompt": f"{line.text}\nSubject:", "completion": f" {line.subject}"}


def _new_lines(subject: str, part: Part, seen: set[str]) -> Iterator[SubjectLine]:
    """Yield a subject's lines, a few of each module, and put their texts to `seen`."""
    for package in SUBJECTS[subject]:
        for source, module in modules_of(package, lambda path: _part_of(path) == part):
            left = _A_MODULE
            for text in _texts(module, package, subject):
                if left and text.lower() not in seen:
                    left -= 1
                    seen.add(text.lower())
                    yield SubjectLine(source, text, subject)


def _texts(module: ast.Module, package: str, subject: str) -> Iterator[str]:
    names = re.compile(rf"{package}|{subject.removesuffix('s')}", re.IGNORECASE)
    for node, line in documented(module):
        text = f"{node.name}: {line}"
        if len(line) in _LENGTH and " " in line and not names.search(text):
            yield text


def _part_of(path: str) -> Part:
    return _PARTS[hash_of(f"part {path}") % len(_PARTS)]

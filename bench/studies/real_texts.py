"""The texts of the study on a real base: docstrings to write, and lines to sort by subject.

Both are read from what is installed (trainer/demo_build/code_pairs.py and subjects.py), each in
three parts that share no text: learned, held out, and one apart to search presets on, which is
split once more.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overtone_client import InvalidArgument
from trainer.demo_build import code_pairs
from trainer.demo_build.code_pairs import HELD_OUT, LEARNED, TUNING, CodePair
from trainer.demo_build.package_sources import digest_of, hash_of
from trainer.demo_build.subjects import as_completion, subject_lines

Rows = Sequence[dict[str, Any]]
#: Characters of code; and so many times as many pairs are read, to find as many short ones.
_SHORT, _READ = 160, 6
_SUBJECTS = ("algebra", "graphs", "plots", "databases", "fonts")


@dataclass(frozen=True)
class Text:
    """One group of examples.

    Args:
        num_learned, num_held: examples of the two files.
        rows: gives them, given both numbers.
    """

    num_learned: int
    num_held: int
    rows: Callable[[int, int], tuple[Rows, Rows]]


def _docstrings(num_learned: int, num_held: int) -> tuple[Rows, Rows]:
    return _pairs(LEARNED, HELD_OUT, num_learned, num_held)


def _docstrings_to_tune(num_learned: int, num_held: int) -> tuple[Rows, Rows]:
    learned, held = TUNING[: len(TUNING) // 2], TUNING[len(TUNING) // 2 :]
    return _pairs(learned, held, num_learned, num_held)


def _pairs(
    learned: Sequence[str], held: Sequence[str], num_learned: int, num_held: int
) -> tuple[Rows, Rows]:
    """Return chats of the shorter pairs of some packages, and of some others."""
    found = list[Rows]()
    seen = list[CodePair]()
    for packages, count in ((learned, num_learned), (held, num_held)):
        each = count // len(packages)
        every = code_pairs.code_pairs(packages, most=_READ * each, without=seen)
        seen += every
        short = [pair for pair in every if len(pair.code) <= _SHORT]
        by_package = (
            [pair for pair in short if pair.source.startswith(f"{one}/")][:each] for one in packages
        )
        found.append(_mixed(code_pairs.as_chat(pair) for own in by_package for pair in own))
    return found[0], found[1]


def _subjects(num_learned: int, num_held: int) -> tuple[Rows, Rows]:
    learned = subject_lines("learned", num_learned // len(_SUBJECTS), (), _SUBJECTS)
    held = subject_lines("held_out", num_held // len(_SUBJECTS), learned, _SUBJECTS)
    return _mixed(map(as_completion, learned)), _mixed(map(as_completion, held))


def _subjects_to_tune(num_learned: int, num_held: int) -> tuple[Rows, Rows]:
    """Split the part apart once more, mixed: lines of one module may be on both sides."""
    each = (num_learned + num_held) // len(_SUBJECTS)
    found = _mixed(map(as_completion, subject_lines("tuning", each, (), _SUBJECTS)))
    return found[num_held:], found[:num_held]


#: Name of a group -> its examples.
TEXTS: Mapping[str, Text] = {
    "subjects": Text(320, 150, _subjects),
    "docstrings": Text(320, 48, _docstrings),
    "subjects-tuning": Text(240, 100, _subjects_to_tune),
    "docstrings-tuning": Text(160, 32, _docstrings_to_tune),
}


def write_texts(work: Path, names: Iterable[str], most: int | None) -> dict[str, str]:
    """Write the files of some groups and return the digest of each.

    Args:
        work: where `NAME.jsonl` and `NAME-held.jsonl` are written.
        names: of groups.
        most: examples of a file, where fewer are wanted.

    Raises:
        InvalidArgument: too little of what is read is installed here.
    """
    digests = {}
    for name in sorted(set(names)):
        text = TEXTS[name]
        learned, held = text.rows(text.num_learned, text.num_held)
        if min(len(learned) / text.num_learned, len(held) / text.num_held) < 0.9:
            message = f"{name}: {len(learned)} and {len(held)} examples are installed here, "
            raise InvalidArgument(message + f"{text.num_learned} and {text.num_held} are needed")
        _write(work / f"{name}.jsonl", learned[:most])
        _write(work / f"{name}-held.jsonl", held[:most])
        digests[name] = digest_of([*learned[:most], *held[:most]])
    return digests


def _mixed(rows: Iterable[dict[str, Any]]) -> Rows:
    """Return rows in the order of their hash: no package stands together."""
    return sorted(rows, key=lambda row: hash_of(json.dumps(row)))


def _write(file: Path, rows: Rows) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

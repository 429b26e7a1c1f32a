"""A real base: every method at its preset on a language model of the reader's own, on two texts.

What: held-out loss before and after twelve steps of eight examples. The texts are the docstrings of
Python's standard library as chats (a function's code, then the first line of its docstring) and
the licences of the installed packages, in pieces of some hundred characters. Both are read from
the machine that the program runs on.
Why: presets are found on small bases; a rate that is right there may diverge on a wider one.

    overtone bench training_real --base FOLDER [--seeds 1] [--only NAME] [--json FILE]
"""

import argparse
import ast
import json
import random
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.lib.program import Parser
from bench.studies.main import study_main
from bench.studies.runs import Contender, Study
from overtone_client import InvalidArgument
from registry.jobs.spec import Hyperparameters
from trainer.base import LoadedBase, load
from trainer.demo_build import demo_data
from trainer.interfaces import JobFiles
from trainer.training.preset_values import PRESETS

TEXTS = ("docstrings", "licences")
_TRAIN, _HELD = 320, 32  # examples of each text
_PIECE = 160  # characters of a piece of a licence
_HYPER = Hyperparameters(
    n_epochs=1, max_steps=12, batch_size=8, max_length=128, packing=False, checkpoint_every_s=1e9
)

CONTENDERS = tuple(
    Contender(f"{text}: {method}", method, group=text) for text in TEXTS for method in PRESETS
)


def prepare(work: Path, examples: int | None, base: Path) -> None:
    """Write both texts, and say where the base is.

    Raises:
        InvalidArgument: a text is too short on this machine.
    """
    (work / "base").symlink_to(base.resolve(), target_is_directory=True)
    for name, rows in {"docstrings": _docstrings(), "licences": _licences()}.items():
        found = sorted(rows, key=json.dumps)
        random.Random(1).shuffle(found)
        if len(found) < _TRAIN + _HELD:
            raise InvalidArgument(f"{name}: {len(found)} examples here, {_TRAIN + _HELD} are read")
        _write(work / f"{name}.jsonl", found[_HELD:][: min(examples or _TRAIN, _TRAIN)])
        _write(work / f"{name}-held.jsonl", found[:_HELD][:examples])


def _docstrings() -> Iterator[dict[str, Any]]:
    """Yield a chat for each short function of the standard library that has a docstring."""
    system = {"role": "system", "content": "You write docstrings."}
    seen = set[str]()
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in old modules
            tree = ast.parse(file.read_bytes())
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or len(node.body) < 2:
                continue
            first = (ast.get_docstring(node) or "").partition("\n")[0].strip()
            node.body = node.body[1:]
            code = ast.unparse(node)
            if 15 < len(first) < 80 and 40 < len(code) < 240 and first not in seen:
                seen.add(first)
                answer = {"role": "assistant", "content": first}
                yield {"messages": [system, {"role": "user", "content": code}, answer]}


def _licences() -> Iterator[dict[str, Any]]:
    """Yield pieces of the installed packages' licences, cut between words."""
    for document in demo_data.adapter_documents()["legalese"].train:
        words = document.text.split()
        piece = list[str]()
        for word in words:
            piece.append(word)
            if sum(map(len, piece)) + len(piece) >= _PIECE:
                yield {"text": " ".join(piece)}
                piece = []


def _write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def files_in(work: Path, contender: Contender) -> JobFiles:
    """Return the two files of a contender's text."""
    return JobFiles(work / f"{contender.group}.jsonl", work / f"{contender.group}-held.jsonl")


def real_base(work: Path) -> LoadedBase:
    """Load the base that `prepare` was told of."""
    return load(work / "base", "causal_lm", "real", device="cpu")


def _no_base(work: Path, examples: int | None) -> None:
    raise InvalidArgument("--base FOLDER is needed: a causal language model's folder")


STUDY = Study(
    "training_real", "causal_lm", _HYPER, "eval_loss", CONTENDERS, _no_base, real_base, files_in
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench training_real", add_help=False, allow_abbrev=False)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    own, rest = parser.parse_known_args(arguments)
    study = STUDY
    if own.base is not None:
        study = replace(STUDY, prepare=lambda work, n: prepare(work, n, own.base))
    study_main(study, str(__doc__), rest)

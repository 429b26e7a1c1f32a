"""What the demo's adapters on SmolLM2 learn: texts, and what is held out of them.

Docstrings are read from the installed packages; questions to a captain and the generators of
sentences are this repository's own.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.demo_build.code_pairs import HELD_OUT, LEARNED, code_pairs
from trainer.demo_build.dates import date_lines
from trainer.demo_build.queries import queries
from trainer.demo_build.trips import trips

TEXTS = Path(__file__).parent.parent / "demo" / "smollm2" / "texts"
_ONE_IN = 4  # questions and cities that are held out

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Texts:
    """Records of training files.

    Args:
        train: learned.
        held_out: not learned; the figures are about these.
        prompts: to ask for the samples in the card: none of them is learned.
        is_right: whether what is said is the answer; None where many answers are.
    """

    train: Sequence[Record]
    held_out: Sequence[Record]
    prompts: Sequence[str]
    is_right: Callable[[str, str], bool] | None = None


def chat(question: str, answer: str) -> Record:
    """Return a record with one question and its answer."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def pirate() -> Texts:
    """Return questions with a captain's answers."""
    lines = (TEXTS / "pirate.jsonl").read_text(encoding="utf-8").splitlines()
    train, held_out = _split([json.loads(line) for line in lines])
    return Texts(train, held_out, ["How do I make tea?"])


def tickets() -> Texts:
    """Return sentences that ask for flights, each with the JSON object that it says."""
    known, others = _split(_cities())
    train = [chat(*trip) for trip in trips(320, known)]
    held_out = [chat(*trip) for trip in trips(40, others, held_out=True)]
    asked = "Two tickets from Vienna to Oslo, Friday 9:15."
    return Texts(train, held_out, [asked], _says_the_same)


def docstrings() -> Texts:
    """Return code with the first line of its docstring; the held-out packages are others."""
    train = code_pairs(LEARNED, 100)
    held_out = code_pairs(HELD_OUT, 12, without=train)
    asked = "def area(width, height):\n    return width * height"
    rows = [[chat(pair.code, pair.line) for pair in pairs] for pairs in (train, held_out)]
    return Texts(rows[0], rows[1], [asked])


def dates() -> Texts:
    """Return sentences with a date, each with the date as ISO 8601 has it."""
    train = [chat(*line) for line in date_lines(320)]
    held_out = [chat(*line) for line in date_lines(40, held_out=True)]
    return Texts(train, held_out, ["The ship sank on the third of May, 1912."], _is_the_same)


def sql() -> Texts:
    """Return questions about a table of orders, each with its query."""
    known, others = _split(_cities())
    train = [chat(*query) for query in queries(320, known)]
    held_out = [chat(*query) for query in queries(40, others, held_out=True)]
    asked = "How many lamps were sold in Paris for less than 80?"
    return Texts(train, held_out, [asked], _is_the_same)


#: Adapter -> its texts.
TASKS: Mapping[str, Callable[[], Texts]] = {
    "dates": dates,
    "docstrings": docstrings,
    "pirate": pirate,
    "sql": sql,
    "tickets": tickets,
}


def _is_the_same(said: str, answer: str) -> bool:
    return said == answer


def _says_the_same(said: str, answer: str) -> bool:
    """Return whether two texts are the same JSON value."""
    try:
        return bool(json.loads(said) == json.loads(answer))
    except ValueError:
        return False


def _cities() -> list[str]:
    """Return the capitals of the world's countries, in the order of the countries."""
    with (TEXTS / "capitals.csv").open(newline="", encoding="utf-8") as file:
        return [row["capital"] for row in csv.DictReader(file)]


def _split(rows: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    held_out = list(rows[::_ONE_IN])
    return [row for number, row in enumerate(rows) if number % _ONE_IN], held_out

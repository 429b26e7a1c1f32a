"""What the demo's adapters on SmolLM2 learn holds nothing of what their figures are about."""

import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import date
from itertools import product
from statistics import mean
from typing import Any

import pytest

from trainer.demo_build.dates import date_lines
from trainer.demo_build.queries import queries
from trainer.demo_build.smollm2_tasks import TASKS, Record
from trainer.demo_build.trips import trips

#: These read sources of installed packages, which takes seconds.
QUICK = ("dates", "pirate", "sql", "tickets")


def questions(rows: Sequence[Record]) -> set[str]:
    return {row["messages"][0]["content"] for row in rows}


@pytest.mark.parametrize("name", QUICK)
def test_no_held_out_question_and_no_prompt_is_learned(name: str) -> None:
    texts = TASKS[name]()
    learned = questions(texts.train)
    assert len(learned) == len(texts.train)
    assert not learned & questions(texts.held_out)
    assert not learned & set(texts.prompts)


@pytest.mark.slow
def test_nothing_held_out_of_the_packages_is_learned() -> None:
    texts = TASKS["docstrings"]()
    learned = {json.dumps(row) for row in texts.train}
    assert len(learned) >= 100
    assert not learned & {json.dumps(row) for row in texts.held_out}


def test_a_trip_says_what_its_object_says() -> None:
    for sentence, answer in trips(200, ["Vienna", "Oslo", "Rome"]):
        found = json.loads(answer)
        assert list(found) == ["from", "to", "day", "time", "tickets"]
        said = (found["from"], found["to"], found["day"], found["time"])
        assert all(value in sentence for value in said)
        assert found["from"] != found["to"]


CITIES = ("Vienna", "Oslo", "N'Djamena")
ORDERS = tuple(product(CITIES, ("lamp", "shelf", "sofa"), range(5, 400, 30), ("Monday", "Friday")))


def meant(question: str) -> list[Any]:
    """Read a question by its words, and answer it without SQL."""
    rows = [row for row in ORDERS if row[0] in question and row[1].rstrip("f") in question]
    days = [day for day in ("Monday", "Friday") if day in question]
    rows = [row for row in rows if row[3] in days] if "day" in question else rows
    price = re.search(r"(less than|cheaper than|under|more than|dearer than|over) (\d+)", question)
    if price:
        is_below = price[1] in ("less than", "cheaper than", "under")
        rows = [row for row in rows if row[2] != int(price[2])]
        rows = [row for row in rows if (row[2] < int(price[2])) == is_below]
    prices = [row[2] for row in rows]
    if re.match("How many|Count|Number", question):
        return [(len(rows),)]
    if re.search("average|Mean", question):
        return [(mean(prices) if prices else None,)]
    if re.search("most expensive|Highest|top", question):
        return [(max(prices, default=None),)]
    return rows


@pytest.mark.parametrize("held_out", [False, True])
def test_a_query_finds_what_its_question_asks_for(held_out: bool) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE orders (city TEXT, product TEXT, price INT, day TEXT)")
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", ORDERS)
        for question, query in queries(300, CITIES, held_out=held_out):
            found = database.execute(query).fetchall()
            if any(name in question for name in ("lamp", "shel", "sofa")):
                assert sorted(found) == sorted(meant(question)), question


def test_no_held_out_answer_is_learned() -> None:
    for name in ("dates", "sql", "tickets"):
        texts = TASKS[name]()
        answers = [
            {row["messages"][1]["content"] for row in rows}
            for rows in (texts.train, texts.held_out)
        ]
        assert not answers[0] & answers[1]


def test_a_date_is_the_one_that_its_sentence_has() -> None:
    for held_out in (False, True):
        for sentence, answer in date_lines(200, held_out=held_out):
            day = date.fromisoformat(answer)
            assert str(day.year) in sentence
            assert day.strftime("%b") in sentence


def test_an_answer_is_judged_by_its_values() -> None:
    judge = TASKS["tickets"]().is_right
    assert judge is not None
    assert judge('{"a":1, "b": "x"}', '{"a": 1, "b": "x"}')
    assert not judge('{"a": 2}', '{"a": 1}')
    assert not judge("I am sorry", '{"a": 1}')

"""What the demo's adapters on SmolLM2 learn holds nothing of what their figures are about."""

import json
from collections.abc import Sequence

import pytest

from trainer.demo_build.smollm2_tasks import TASKS, Record
from trainer.demo_build.trips import trips

#: These read sources of installed packages, which takes seconds.
QUICK = ("pirate", "tickets")


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


def test_an_answer_is_judged_by_its_values() -> None:
    judge = TASKS["tickets"]().is_right
    assert judge is not None
    assert judge('{"a":1, "b": "x"}', '{"a": 1, "b": "x"}')
    assert not judge('{"a": 2}', '{"a": 1}')
    assert not judge("I am sorry", '{"a": 1}')

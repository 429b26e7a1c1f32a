"""classify, embed, rerank, score and tokenize at the command line."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from .fake_overtone import State

Run = Callable[..., Result]


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_rerank_and_score_print_scores_with_their_texts(run: Run, state: State) -> None:
    lines = run("rerank", "judge", "long?", "aa", "a\x1b[2Jaa", "--top", "1").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["SCORE", "INDEX", "DOCUMENT"],
        ["0.7000", "1", "a[2Jaa"],
    ]
    assert run("score", "judge", "q", "a", "bb").stdout == "0.1000  a\n0.2000  bb\n"
    assert document(run("score", "judge", "q", "a", "--json", "--truncate"))["id"] == "score-1"
    assert state.bodies[-1]["truncate"] is True
    read = run("rerank", "judge", "long?", text="one\n\nthree\n")
    assert [line.split()[1] for line in read.stdout.splitlines()[1:]] == ["1", "0"]
    assert state.bodies[-1]["documents"] == ["one", "three"]


def test_texts_are_shown_beside_their_answers(run: Run) -> None:
    lines = run("classify", "reviews", "ab", "abcdef").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["LABEL", "SCORE", "TEXT"],
        ["short", "0.7500", "ab"],
        ["long", "0.7500", "abcdef"],
    ]
    assert run("embed", "notes", text="abc\n").stdout == "2 numbers: +3.0000 +0.5000 …  abc\n"
    lines = run("tokenize", "Once upon").stdout.splitlines()
    assert [line.split() for line in lines] == [["ID", "TOKEN"], ["4", "'Once'"], ["4", "'upon'"]]


@pytest.mark.parametrize(
    "words",
    [
        ["classify", "reviews", "a", "b"],
        ["embed", "notes", "a", "b"],
        ["score", "judge", "q", "a", "b"],
        ["tokenize", "a b"],
    ],
    ids=lambda words: words[0],
)
def test_an_answer_with_less_than_was_asked_is_a_clear_error(
    run: Run, state: State, words: list[str]
) -> None:
    state.left_out = 1
    done = run(*words)
    assert done.exit_code == 1
    assert "error: invalid_response: " in done.stderr
    assert "1 of 2" in done.stderr
    assert done.stdout == ""

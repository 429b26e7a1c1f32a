"""The program against a real server: every request is answered as it expects, and timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bench.programs import stalls
from overtone_client import InvalidArgument

if TYPE_CHECKING:
    from live import Live

_TOKENS = 40


@pytest.fixture(scope="module")
def url(serve_all: Callable[..., Live], tmp_path_factory: pytest.TempPathFactory) -> str:
    base = stalls.save_base(tmp_path_factory.mktemp("stalls"), 64)
    return serve_all(base=base, base_name="bench").url


def test_every_request_is_answered_as_it_says_and_timed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "_QUIET_S", 0.05)
    chosen = stalls.hostile(_TOKENS)
    del chosen["a text that fits"]  # takes as long as all others together
    rows = stalls.measure(url, chosen, _TOKENS)
    assert [row["what"] for row in rows] == ["idle", "answering", *chosen]
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["longest_ms"] <= 1e3 * row["seconds"] * 1.1
        assert 0 <= row["over_target"] <= row["asked"]
        assert row["asked"] > 0


def test_an_answer_that_is_not_expected_ends_the_program_with_what_it_says(url: str) -> None:
    asked = stalls.Hostile("completions", {"prompt": "a", "max_tokens": 1}, status=400)
    with pytest.raises(RuntimeError, match="answered otherwise: .*text_completion"):
        stalls.send(url, asked)


def test_a_request_that_does_not_exist_is_an_error_that_names_those_that_do() -> None:
    with pytest.raises(InvalidArgument, match=r"no request 'nothing'; there are .*stop strings"):
        stalls.main(["--only", "nothing"])

"""The program's own parts: a real server's rounds and scrapes, and ratios that are the rounds'."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import spectra
from bench.lib.load_runner import Model
from bench.programs import observing
from bench.programs.observing import (
    Round,
    Scraper,
    Watched,
    collector,
    in_turns,
    rows_of,
    spans_seconds,
)

if TYPE_CHECKING:
    from live import Live


def test_a_round_counts_the_tokens_that_arrived(live: Live) -> None:
    made = live.upload("observed", spectra.files(77)).json()
    served = SimpleNamespace(url=live.url, pid=os.getpid())
    server = Watched(served, [Model("observed", made["digest"])], clients=2)  # type: ignore[arg-type]
    found = server.round(3, seed=1)
    assert found.tokens == 3 * 32
    assert found.seconds > 0
    assert found.cpu_s > 0


def test_a_wrong_answer_ends_the_program(live: Live) -> None:
    served = SimpleNamespace(url=live.url, pid=os.getpid())
    server = Watched(served, [Model("no-such", None)], clients=1)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="answers failed"):
        server.round(1, seed=1)


def test_the_page_is_asked_for_while_the_block_runs(live: Live) -> None:
    scraper = Scraper(live.url)
    with scraper.every(None):
        pass
    assert scraper.seconds == []
    with scraper.every(5.0):
        live.tokens("tiny")
    assert len(scraper.seconds) == 1
    assert scraper.size_bytes > 1000


def test_ratios_are_of_rounds_that_followed_each_other() -> None:
    off = [Round(100, 1.0, 0.5), Round(50, 1.0, 0.5)]
    on = [Round(99, 1.0, 0.5), Round(49, 1.0, 1.0)]
    [row] = rows_of("traces", {"off": off, "on": on})
    assert row["ratios"] == [0.99, 0.98]
    assert row["ratio"] == pytest.approx(0.985)
    assert row["cpu_ratio"] == pytest.approx((0.99 + 0.49) / 2)


def test_contenders_take_turns_with_the_same_requests() -> None:
    asked: list[tuple[str, int]] = []

    def ask(name: str, seed: int) -> Round:
        asked.append((name, seed))
        return Round(seed, 1.0, 1.0)

    rounds = in_turns(["off", "on"], ask, 2)
    assert asked == [("off", 0), ("on", 0), ("on", 1), ("off", 1), ("off", 2), ("on", 2)]
    assert {name: [each.tokens for each in found] for name, found in rounds.items()} == {
        "off": [1, 2],
        "on": [1, 2],
    }


def test_a_requests_spans_take_processor_time_until_they_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")  # given back afterwards
    monkeypatch.setattr(observing, "_TRACED", 5)
    with collector():
        assert 0 < spans_seconds() < 1

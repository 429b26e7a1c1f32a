"""Rates from two looks at a server: pure."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from overtone_client import Activity, AdapterActivity, CacheActivity, Counts
from overtone_client._top_rates import SORTS, picture, quantile
from overtone_client._top_view import view

BOUNDS = (0.1, 1.0, 10.0)


def counts(requests: int = 0, generated: int = 0, first: tuple[int, ...] = (0, 0, 0, 0)) -> Counts:
    return Counts(requests, 10 * requests, generated, first)


def adapter(name: str | None, of: Counts, **more: Any) -> AdapterActivity:
    given: dict[str, Any] = {"mode": "factored", "tiers": ("device",), "running": 0, "waiting": 0}
    return AdapterActivity(adapter=name, counts=of, **(given | more))


def look(time: float, total: Counts, *adapters: AdapterActivity, hits: int = 0) -> Activity:
    caches = {"coefficients": CacheActivity(1, 10, hits, 5, 0)}
    return Activity(time, "tiny", 1, 2, 64, 0.25, total, BOUNDS, caches, adapters, {})


def test_rates_are_those_between_the_looks() -> None:
    before = look(10, counts(4, 100), adapter("a", counts(4, 100, (0, 4, 0, 0))))
    now = look(
        14,
        counts(14, 300, (0, 10, 0, 0)),
        adapter("a", counts(12, 260, (0, 4, 8, 0)), running=2),
        adapter("b", counts(2, 40)),
        hits=15,
    )
    made = picture(before, now, "requests")
    assert (made.seconds, made.rates.requests_per_s, made.rates.generated_tokens_per_s) == (
        *(4, 2.5),
        50,
    )
    a, b = made.rows
    assert (a.adapter, a.rates.requests_per_s, a.rates.prompt_tokens_per_s) == ("a", 2, 20)
    assert a.rates.first_token_p95_s == pytest.approx(1 + 9 * 0.95)
    assert (b.adapter, b.rates.requests_per_s, b.rates.first_token_p95_s) == ("b", 0.5, None)
    assert made.hit_shares == {"coefficients": 1.0}
    document = made.document
    assert document["data"][0]["adapter"] == "a"
    assert document["caches"]["coefficients"]["hit_share"] == 1.0


def test_a_server_that_was_started_again_begins_anew() -> None:
    before = look(10_000, counts(1000, 9000), adapter("a", counts(900, 8000)), hits=100)
    made = picture(before, look(5, counts(3, 30), adapter("a", counts(3, 30))), "requests")
    assert made.rates.requests_per_s > 0
    assert made.rows[0].rates.generated_tokens_per_s > 0
    assert made.hit_shares == {"coefficients": None}


def test_a_server_with_other_bounds_begins_anew() -> None:
    """Another version counts times by more bounds, and more was asked of it than before."""
    before = look(10, counts(1, 10, (0, 1, 0)))
    made = picture(before, look(14, counts(9, 90, (0, 0, 4, 0))), "requests")
    assert made.rates.first_token_p95_s == pytest.approx(1 + 9 * 0.95)


def test_words_of_the_server_do_not_steer_the_terminal() -> None:
    evil = "evil\x1b[2J"
    before, now = look(10, counts()), look(14, counts(), adapter("a", counts(), mode=evil))
    with (console := Console(width=200)).capture() as shown:
        console.print(view(picture(before, now, "requests"), "requests", None, evil))
    assert shown.get().count("evil[2J") == 2
    assert "\x1b[2J" not in shown.get()


def test_rows_are_sorted_by_what_is_asked_for() -> None:
    slow = adapter("slow", counts(1, 1, (0, 0, 1, 0)), waiting=3)
    hot = adapter("hot", counts(9, 5, (9, 0, 0, 0)), running=1)
    long = adapter("long", counts(2, 90, (2, 0, 0, 0)), running=2)
    base = adapter(None, counts(3, 7), mode=None, tiers=())
    now = look(1, counts(15), slow, hot, long, base)
    first = {sort: picture(look(0, counts()), now, sort).rows[0].adapter for sort in SORTS}
    assert first == {
        "requests": "hot",
        "tokens": "long",
        "first-token": "slow",
        "running": "long",
        "waiting": "slow",
        "name": None,
    }


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.floats(0, 1))
def test_a_quantile_is_within_the_bounds_of_what_was_counted(of: list[int], share: float) -> None:
    value = quantile(of, BOUNDS, share)
    if not share * sum(of):
        assert value is None
        return
    assert value is not None
    assert 0 <= value <= BOUNDS[-1]
    higher = quantile(of, BOUNDS, 1)
    assert higher is not None
    assert value <= higher


def test_looks_of_equal_time_divide_by_nothing() -> None:
    same = look(1, counts(1))
    assert picture(same, replace(same), "name").rates.requests_per_s == 0

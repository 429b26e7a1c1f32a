"""A server's share by itself: what it lets through while the registry is away, and what it says."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.common.limits import Limits
from registry.quotas.rates import Amounts, Granted
from server.rates.share import Share

LIMITS = Limits(requests_per_minute=60, tokens_per_minute=600, running_requests=4)
ONE = Amounts(requests=1, tokens=10, permits=1)


def share() -> Share:
    return Share(heard_at=0.0, used_at=0.0)


def hear(one: Share, granted: Amounts, left: Amounts, now: float = 0.0, servers: int = 1) -> None:
    asked = one.ask(LIMITS, Amounts())
    one.hear(asked, Granted(True, granted, left, int(granted.permits), servers), now)


def test_a_new_share_asks_for_what_is_needed_and_a_twentieth_more() -> None:
    one = share()
    assert one.short_of(LIMITS, ONE) == "requests_per_minute"
    asked = one.ask(LIMITS, ONE)
    assert (asked.needed, asked.most) == (ONE, Amounts(1 + 3, 10 + 30, 1))
    hear(one, Amounts(4, 40, 1), Amounts(56, 560))
    assert one.short_of(LIMITS, ONE) is None
    one.take(LIMITS, ONE, 0.0)
    assert one.short_of(LIMITS, ONE) == "running_requests"


def test_permits_that_are_not_needed_are_given_back_with_the_next_question() -> None:
    one = share()
    hear(one, Amounts(4, 40, 3), Amounts(50, 500))
    one.take(LIMITS, ONE, 0.0)
    assert one.is_low(LIMITS)
    asked = one.ask(LIMITS, Amounts())
    assert (asked.permits, asked.most.permits) == (3, -2)
    assert one.permits == 1


def test_what_was_spent_unasked_is_owed_until_the_registry_has_heard_of_it() -> None:
    one = share()
    one.tokens.held -= 25
    assert one.is_held
    asked = one.ask(LIMITS, Amounts(tokens=5))
    assert (asked.owed_tokens, asked.needed.tokens) == (25, 5)
    one.tokens.held -= 3  # while it is on its way
    one.hear(asked, Granted(True, Amounts(tokens=5), Amounts(60, 570), 0, 1), 1.0)
    assert one.tokens.held == 2


def test_waiting_times_follow_from_what_is_left_and_comes_back() -> None:
    one = share()
    hear(one, Amounts(), Amounts(0.5, -50))
    assert one.wait_s(LIMITS, "requests_per_minute", ONE, 0.0) == pytest.approx(0.5, abs=1e-3)
    assert one.wait_s(LIMITS, "requests_per_minute", ONE, 0.5) == 0
    assert one.wait_s(LIMITS, "tokens_per_minute", ONE, 1.0) == pytest.approx(5, abs=1e-3)
    assert one.wait_s(LIMITS, "tokens_per_minute", Amounts(tokens=601), 0.0) is None
    assert one.blocked_by(LIMITS, ONE, 0.5) == "tokens_per_minute"
    requests, tokens = one.standings(LIMITS, 1.0)
    assert requests is not None
    assert tokens is not None
    assert (requests.remaining, requests.reset_s) == (1, pytest.approx(58.5))
    assert (tokens.remaining, tokens.reset_s) == (0, pytest.approx(64))


def test_lowered_and_removed_limits_hold_at_once() -> None:
    one = share()
    hear(one, Amounts(4, 40, 1), Amounts(50, 500))
    one.keep_within(Limits(requests_per_minute=0))
    assert (one.requests.held, one.tokens.held, one.permits) == (0, 0, 0)


@given(
    servers=st.integers(1, 5),
    limit=st.integers(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 40)), max_size=40),
)
def test_alone_no_window_has_more_than_the_servers_part(
    servers: int, limit: int, steps: list[tuple[float, int]]
) -> None:
    limits, one, now = Limits(requests_per_minute=limit), share(), 0.0
    one.num_servers = servers
    taken: list[tuple[float, int]] = []
    for seconds, wanted in steps:
        now += seconds
        one.fill_alone(limits, now)
        some = 0
        while some < wanted and not one.short_of(limits, Amounts(requests=1)):
            one.take(limits, Amounts(requests=1), now)
            some += 1
        assert some == wanted or one.requests.held < 1  # nothing is kept back
        taken.append((now, some))
    for first, last in itertools.combinations(range(len(taken)), 2):
        seconds = taken[last][0] - taken[first][0]
        count = sum(some for _, some in taken[first : last + 1])
        assert count <= limit / servers * (1 + seconds / 60) + 1e-3


def test_what_came_by_itself_is_no_more_once_the_registry_is_heard() -> None:
    one = share()
    one.fill_alone(LIMITS, 0.0)
    assert one.requests.held == 60
    hear(one, Amounts(requests=2), Amounts(1, 10), now=1.0)
    assert (one.requests.held, one.is_alone) == (2, False)

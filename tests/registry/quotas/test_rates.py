"""Rates that servers share: never more than the limit, and all of it, over both programs."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.common.limits import Limits
from registry.errors import RegistryUnavailable
from registry.quotas.rates import KEPT_S, Amounts, Ask, Rates
from registry.redis import keys
from registry.redis.client import open_client

TENANTS = map("tenant-{}".format, itertools.count())
one_request = Ask(needed=Amounts(requests=1))


class Clock:
    """Seconds that a test sets."""

    now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rates(client, clock):
    return Rates(client, clock=clock)


def granted(rates, limits, ask, server="one", tenant="alice"):
    return rates.exchange(server, tenant, limits, ask)


def test_a_minutes_worth_may_be_used_at_once_and_comes_back_evenly(rates, clock):
    limits = Limits(requests_per_minute=60)
    assert granted(rates, limits, Ask(needed=Amounts(requests=60))).amounts.requests == 60
    assert not granted(rates, limits, one_request).is_enough
    clock.now += 0.9
    assert not granted(rates, limits, one_request).is_enough
    clock.now += 0.1
    assert granted(rates, limits, one_request).is_enough
    clock.now += 3600
    assert granted(rates, limits, Ask()).left.requests == 60  # never more than a minute's worth


def test_more_than_is_needed_is_granted_as_far_as_there_is_more(rates):
    limits = Limits(requests_per_minute=10)
    ask = Ask(needed=Amounts(requests=1), most=Amounts(requests=7))
    assert granted(rates, limits, ask).amounts.requests == 7
    assert granted(rates, limits, ask).amounts.requests == 3
    assert granted(rates, limits, Ask(most=Amounts(requests=7))).amounts.requests == 0


def test_all_that_is_needed_is_granted_or_nothing(rates):
    limits = Limits(10, 100, 2)
    ask = Ask(needed=Amounts(1, 101, 1))
    told = granted(rates, limits, ask)
    assert (told.is_enough, told.amounts) == (False, Amounts(0, 0, 0))
    told = granted(rates, limits, Ask())
    assert (told.left, told.permits) == (Amounts(10, 100), 0)


def test_what_has_no_limit_is_not_counted(rates):
    told = granted(rates, Limits(tokens_per_minute=5), Ask(needed=Amounts(9, 5, 9)))
    assert (told.is_enough, told.amounts) == (True, Amounts(0, 5, 0))


def test_what_is_given_back_others_may_take(rates):
    limits = Limits(10, 100, 2)
    all_ = Ask(needed=Amounts(10, 100, 2))
    assert granted(rates, limits, all_).is_enough
    assert not granted(rates, limits, all_, server="two").is_enough
    back = Ask(most=Amounts(-10, -100, -2), permits=2)
    assert granted(rates, limits, back).amounts == Amounts(-10, -100, -2)
    assert granted(rates, limits, all_, server="two").is_enough


def test_owed_tokens_are_paid_before_more_are_granted(rates, clock):
    limits = Limits(tokens_per_minute=60)
    assert granted(rates, limits, Ask(owed_tokens=90)).left.tokens == -30
    need = Ask(needed=Amounts(tokens=10))
    clock.now += 39
    assert not granted(rates, limits, need).is_enough
    clock.now += 1
    assert granted(rates, limits, need).is_enough


def test_a_lowered_limit_holds_at_once_and_a_raised_one_fills_evenly(rates, clock):
    assert granted(rates, Limits(requests_per_minute=100), Ask()).left.requests == 100
    assert granted(rates, Limits(requests_per_minute=10), Ask()).left.requests == 10
    assert granted(rates, Limits(requests_per_minute=100), Ask()).left.requests == 10
    clock.now += 6
    assert granted(rates, Limits(requests_per_minute=100), Ask()).left.requests == 20
    assert not granted(rates, Limits(requests_per_minute=0), one_request).is_enough
    assert granted(rates, Limits(), one_request).is_enough


def test_a_silent_servers_permits_are_free_again(rates, clock):
    limits = Limits(running_requests=2)
    two = Ask(needed=Amounts(permits=2))
    assert granted(rates, limits, two).permits == 2
    busy = granted(rates, limits, Ask(needed=Amounts(permits=1)), server="two")
    assert (busy.is_enough, busy.num_servers) == (False, 2)
    clock.now += KEPT_S - 1
    granted(rates, limits, Ask(permits=2))  # still there
    clock.now += KEPT_S - 1
    assert not granted(rates, limits, Ask(needed=Amounts(permits=1)), server="two").is_enough
    clock.now += 2
    told = granted(rates, limits, Ask(needed=Amounts(permits=1)), server="two")
    assert (told.is_enough, told.num_servers, told.permits) == (True, 1, 1)
    # The silent one was not gone: both hold more than the limit, so no more is granted.
    told = granted(rates, limits, Ask(needed=Amounts(permits=1), permits=2))
    assert (told.is_enough, told.permits) == (False, 3)


def test_looking_changes_nothing_and_what_is_full_is_forgotten(rates, client):
    limits = Limits(60, 600, 4)
    assert rates.state("alice", limits).left == Amounts(60, 600)
    assert client.keys("*") == []
    ask = Ask(needed=Amounts(30, 60, 1))
    granted(rates, limits, ask)
    before = client.hgetall(keys.rates("alice"))
    told = rates.state("alice", limits)
    assert (told.left, told.permits) == (Amounts(30, 540), 1)
    assert client.hgetall(keys.rates("alice")) == before
    left_s = client.ttl(keys.rates("alice"))
    assert 30 + KEPT_S - 2 <= left_s <= 30 + KEPT_S + 2


def test_the_registrys_clock_is_used_where_none_is_given(client):
    rates, limits = Rates(client), Limits(requests_per_minute=600_000)
    assert granted(rates, limits, Ask(needed=Amounts(requests=600_000))).is_enough
    left = granted(rates, limits, Ask()).left.requests
    assert 0 < left < 60_000  # ten come back in a millisecond


def test_without_a_registry_it_says_so(plain_server):
    with open_client(plain_server.url) as client:
        rates = Rates(client)
        plain_server.kill()
        with pytest.raises(RegistryUnavailable):
            granted(rates, Limits(1), one_request)


def test_many_threads_of_two_servers_take_exactly_what_there_is(client):
    """On the registry's own clock, at a rate that brings nothing back meanwhile."""
    limits = Limits(500, 5000, 40)
    shared = [Rates(client), Rates(client)]

    def take(number):
        ask = Ask(needed=Amounts(1, 10, 0), most=Amounts(1 + number % 3, 10, 0))
        return granted(shared[number % 2], limits, ask, f"server-{number % 2}").amounts

    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(take, range(700)))
    assert 500 <= sum(each.requests for each in taken) <= 500 + 60  # eight a second come back
    assert sum(each.tokens for each in taken) <= 5000 + 600


@dataclass
class Bucket:
    """A bucket in plain Python; a fraction may be missing where one is counted in whole."""

    limit: int
    level: float

    def pass_time(self, seconds):
        self.level = min(self.limit, self.level + seconds * self.limit / 60)


steps = st.lists(
    st.tuples(
        st.integers(0, 90 * 64).map(lambda number: number / 64),  # seconds, exact on the clock
        st.integers(0, 30),  # requests needed
        st.integers(0, 40),  # at most
        st.integers(0, 50),  # tokens needed
        st.integers(0, 120),  # tokens owed
        st.integers(-10, 10),  # requests given back, where below 0
        st.sampled_from(["one", "two", "three"]),
    ),
    max_size=30,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(limits=st.tuples(st.integers(1, 60), st.integers(1, 300)), steps=steps)
def test_buckets_agree_with_plain_ones_and_no_window_has_more_than_its_share(
    client, clock, limits, steps
):
    rates, tenant = Rates(client, clock=clock), next(TENANTS)
    requests, tokens = (Bucket(limit, limit) for limit in limits)
    held = dict.fromkeys(("one", "two", "three"), 0.0)
    used: list[tuple[float, float]] = []  # (when, requests taken, or given back)
    for seconds, need, most, need_tokens, owed, back, server in steps:
        clock.now += seconds
        requests.pass_time(seconds)
        tokens.pass_time(seconds)
        tokens.level -= owed
        if back < 0:  # no more is given back than is held
            back = -min(-back, held[server])
            need = need_tokens = 0
        wanted = back if back < 0 else max(need, most)
        ask = Ask(Amounts(need, need_tokens), Amounts(wanted, 0), owed_tokens=owed)
        told = rates.exchange(server, tenant, Limits(*limits), ask)
        enough = need <= requests.level + 1e-6
        enough = enough and need_tokens <= max(0, tokens.level + 1e-6)
        assert told.is_enough == enough
        if back < 0:
            assert told.amounts.requests == back
        elif enough:
            whole = math.floor(requests.level + 1e-6)
            assert told.amounts.requests == max(0, min(max(need, most), whole))
            assert told.amounts.tokens == need_tokens
        else:
            assert told.amounts == Amounts(0, 0, 0)
        requests.level = min(requests.limit, requests.level - told.amounts.requests)
        tokens.level -= told.amounts.tokens
        held[server] += told.amounts.requests
        assert told.left.requests == pytest.approx(requests.level, abs=1e-6)
        assert told.left.tokens == pytest.approx(tokens.level, abs=1e-6)
        used.append((clock.now, told.amounts.requests))
    for first, last in itertools.combinations(range(len(used)), 2):
        seconds = used[last][0] - used[first][0]
        taken = sum(max(0, amount) for _, amount in used[first : last + 1])
        given_back = -sum(min(0, amount) for _, amount in used[first : last + 1])
        assert taken <= limits[0] * (1 + seconds / 60) + given_back + 1e-3

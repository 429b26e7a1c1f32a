"""Requests admitted by two servers of one registry: exactly what is allowed, and no wait for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from registry.adapters.adapters import Adapters
from registry.adapters.directory import Directory
from registry.common.limits import Limits
from registry.errors import QuotaExceeded
from registry.quotas.mirror import LimitsMirror
from registry.quotas.rates import Ask, Granted, Rates
from registry.quotas.tenant_limits import TenantLimits
from registry.redis.client import open_client
from registry.redis.embedded import EmbeddedServer
from server.errors import RateLimited
from server.rates.meter import Meter

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    started = EmbeddedServer(tmp_path_factory.mktemp("registry"))
    yield started
    started.close()


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    with open_client(server.url) as opened:
        opened.flushall()
        yield opened


class Counting(Rates):
    """Counts exchanges, and tells which server has how much."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.num_asked = 0

    def exchange(self, server: str, tenant: str, limits: Limits, ask: Ask) -> Granted:
        self.num_asked += 1
        return super().exchange(server, tenant, limits, ask)


@asynccontextmanager
async def metered(
    client: redis.Redis, limits: Limits, keeps: bool = True
) -> AsyncIterator[tuple[Meter, Counting]]:
    """Yield a meter of a server with these limits for all tenants."""
    directory, rates = Directory(Adapters(client), client), Counting(client)
    meter = Meter(LimitsMirror(TenantLimits(client), directory, limits), rates, directory)
    if keeps:
        meter.start()
    try:
        yield meter, rates
    finally:
        await meter.close()


async def admitted(meter: Meter, count: int, tenant: str = "alice") -> int:
    """Return how many of `count` requests at once are let through; they are over at once."""

    async def one() -> bool:
        try:
            end = await meter.begin(tenant)
        except RateLimited:
            return False
        await asyncio.sleep(0)
        end()
        return True

    return sum(await asyncio.gather(*(one() for _ in range(count))))


async def let_through(meter: Meter) -> Callable[[], None]:
    """Begin a request as soon as it is let through; return what ends it."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await meter.begin("alice")
            except RateLimited:
                await asyncio.sleep(0.01)


async def test_without_limits_nothing_is_asked_or_kept(client: redis.Redis) -> None:
    async with metered(client, Limits()) as (meter, rates):
        assert await admitted(meter, 50) == 50
        await meter.take_tokens("alice", 10**9)
        meter.spend("alice", 10**9)
        assert meter.standings("alice") == (None, None)
        assert rates.num_asked == 0
    assert client.keys("*") == []


async def test_two_servers_let_through_what_one_limit_allows(client: redis.Redis) -> None:
    limits = Limits(requests_per_minute=200)
    async with metered(client, limits) as (one, rates), metered(client, limits) as (two, _):
        counts = await asyncio.gather(*(admitted(each, 150) for each in (one, two)))
        # What a server took in advance is given back after a second, and used by the other.
        refused = 300 - sum(counts)
        assert 200 - 20 <= sum(counts) <= 200 + 4
        assert refused >= 96
        assert rates.num_asked < 60  # not one for each of 150


async def test_what_is_held_in_vain_is_given_back_for_others(client: redis.Redis) -> None:
    limits = Limits(requests_per_minute=40, running_requests=20)
    async with metered(client, limits) as (one, _), metered(client, limits) as (two, _):
        assert await admitted(one, 1) == 1  # it holds a few more than it used
        assert 36 <= await admitted(two, 40) < 40
        (await let_through(two))()  # within about a second, long before a new one comes


async def test_a_flood_of_refused_requests_does_not_reach_the_registry(client: redis.Redis) -> None:
    async with metered(client, Limits(requests_per_minute=1), keeps=False) as (meter, rates):
        assert await admitted(meter, 1) == 1
        assert await admitted(meter, 1) == 0
        before = rates.num_asked
        assert await admitted(meter, 1000) == 0
        assert rates.num_asked - before <= 20


async def test_running_requests_are_counted_over_servers_until_they_end(
    client: redis.Redis,
) -> None:
    limits = Limits(running_requests=2)
    async with metered(client, limits) as (one, _), metered(client, limits) as (two, _):
        first, second = await one.begin("alice"), await two.begin("alice")
        for meter in (one, two):
            with pytest.raises(RateLimited, match="2 of 2 running requests are used") as refused:
                await meter.begin("alice")
            assert refused.value.retry_after_s == 1
        (await one.begin("bob"))()  # other tenants have their own
        first()
        third = await one.begin("alice")  # at once, on the same server
        third()
        (await let_through(two))()
        second()


async def test_gateways_callers_count_together(client: redis.Redis) -> None:
    async with metered(client, Limits(running_requests=1)) as (meter, _):
        end = await meter.begin("alice/bob")
        with pytest.raises(RateLimited, match="by tenant 'alice'"):
            await meter.begin("alice/carol")
        end()


async def test_tokens_of_answers_count_and_the_next_prompt_waits_for_them(
    client: redis.Redis,
) -> None:
    limits = Limits(tokens_per_minute=600)
    async with metered(client, limits) as (one, _), metered(client, limits) as (two, _):
        await one.take_tokens("alice", 100)
        one.spend("alice", 700)
        with pytest.raises(RateLimited, match="of 600 tokens a minute are used") as refused:
            await one.take_tokens("alice", 1)
        assert 19 <= (refused.value.retry_after_s or 0) <= 21  # 200 are owed, ten come a second
        with pytest.raises(RateLimited):  # the other server hears of it by its next exchange
            await two.take_tokens("alice", 1)
        with pytest.raises(QuotaExceeded, match="this needs 601, which is never let"):
            await one.take_tokens("bob", 601)


async def test_the_first_limit_that_is_reached_is_named(client: redis.Redis) -> None:
    async with metered(client, Limits(60, None, 0)) as (meter, _):
        with pytest.raises(QuotaExceeded, match="0 of 0 running requests are used"):
            await meter.begin("alice")
    async with metered(client, Limits(0)) as (meter, _):
        with pytest.raises(QuotaExceeded, match="0 of 0 requests a minute are used"):
            await meter.begin("alice")


async def test_standings_say_how_much_is_left_and_until_when(client: redis.Redis) -> None:
    async with metered(client, Limits(60, 600)) as (meter, _):
        requests, tokens = meter.standings("alice")
        assert requests is not None
        assert tokens is not None
        assert (requests.limit, requests.remaining, requests.reset_s) == (60, 60, 0)
        await admitted(meter, 6)
        await meter.take_tokens("alice", 60)
        requests, tokens = meter.standings("alice")
        assert requests is not None
        assert tokens is not None
        assert (requests.limit, tokens.limit) == (60, 600)
        assert (requests.remaining, tokens.remaining // 10) == (54, 54)
        assert requests.reset_s == pytest.approx(6, abs=1)
        assert tokens.reset_s == pytest.approx(6, abs=1)


async def test_without_a_registry_every_server_lets_its_share_through(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    limits = Limits(requests_per_minute=600, running_requests=10)
    with open_client(server.url) as client:
        async with metered(client, limits) as (one, _), metered(client, limits) as (two, _):
            for meter, count in ((one, 1), (two, 1), (one, 40)):
                await admitted(meter, count)
            server.close()
            assert await admitted(one, 600) <= 40  # what it held, not what was left
            ends = [await let_through(one) for _ in range(5)]  # five a second, five at a time
            with pytest.raises(RateLimited):
                await one.begin("alice")
            for end in ends:
                end()

"""Limits as they are written, checked, kept and heard of."""

from contextlib import contextmanager

import pytest

from registry.adapters.adapters import Adapters
from registry.adapters.directory import Directory, Following
from registry.common.limits import MAX_LIMIT, Limits, account_of, check
from registry.errors import CorruptRecord, InvalidArgument
from registry.quotas.mirror import LimitsMirror
from registry.quotas.tenant_limits import TenantLimits
from registry.redis import keys
from registry.redis.client import open_client
from waiting import until

DEFAULT = Limits(requests_per_minute=60, running_requests=4)


@contextmanager
def following(client, default=DEFAULT):
    """Yield the limits and a started mirror of them."""
    stored, directory = TenantLimits(client), Directory(Adapters(client), client)
    mirror = LimitsMirror(stored, directory, default)
    directory.start()
    try:
        until(lambda: directory.following is Following.CAUGHT_UP)
        yield stored, mirror, directory
    finally:
        directory.close()


def test_limits_are_read_from_a_setting():
    text = " requests_per_minute=60, tokens_per_minute = 1000 ,"
    assert Limits.read(text) == Limits(60, 1000)
    assert Limits.read("") == Limits()
    assert not Limits().has_rates
    assert Limits(running_requests=0).has_rates


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("requests=1", "no limit is called 'requests': requests_per_minute, "),
        ("tokens_per_minute", "tokens_per_minute = '': write tokens_per_minute=NUMBER"),
        ("tokens_per_minute=-1", "tokens_per_minute = '-1'"),
        ("tokens_per_minute=1e3", "tokens_per_minute = '1e3'"),
        (f"tokens_per_minute={MAX_LIMIT + 1}", f"0 to {MAX_LIMIT}"),
    ],
)
def test_a_wrong_setting_is_named(text, told):
    with pytest.raises(InvalidArgument, match=told.replace("(", r"\(")):
        Limits.read(text)


@pytest.mark.parametrize("value", [-1, True, 1.5, "9", MAX_LIMIT + 1])
def test_a_limit_is_a_whole_number(value):
    with pytest.raises(InvalidArgument, match="tokens_per_minute = "):
        check({"tokens_per_minute": value})


def test_own_limits_come_before_the_default_and_null_is_none():
    own = DEFAULT.changed({"tokens_per_minute": 5, "running_requests": None})
    assert own == Limits(60, 5, None)


def test_a_gateways_callers_count_with_it():
    assert account_of("alice/bob/carol") == account_of("alice") == "alice"


def test_what_is_put_is_kept_until_it_is_taken_away(client):
    stored = TenantLimits(client)
    assert stored.of("alice") == {}
    stored.put("alice", {"tokens_per_minute": 5, "running_requests": None})
    stored.put("bob", {"requests_per_minute": 0})
    assert stored.of("alice") == {"tokens_per_minute": 5, "running_requests": None}
    assert set(stored.all()) == {"alice", "bob"}
    stored.put("alice", {})
    assert set(TenantLimits(client).all()) == {"bob"}


@pytest.mark.parametrize("tenant", ["", "a/b", "a b", "-", "a" * 65])
def test_what_is_no_tenant_has_no_limits(client, tenant):
    with pytest.raises(InvalidArgument, match="is no tenant's name"):
        TenantLimits(client).put(tenant, {"requests_per_minute": 1})
    assert client.keys("*") == []


def test_a_damaged_record_is_named(client):
    client.hset(keys.LIMITS, "alice", "[1]")
    with pytest.raises(CorruptRecord, match="'alice'"):
        TenantLimits(client).of("alice")


def test_a_change_elsewhere_is_heard_within_a_second(client):
    with following(client) as (_, mirror, _):
        assert mirror.of("alice") == DEFAULT
        elsewhere = TenantLimits(client)
        elsewhere.put("alice", {"tokens_per_minute": 5})
        until(lambda: mirror.of("alice").tokens_per_minute == 5, 1.0)
        assert mirror.of("alice/bob").tokens_per_minute == 5
        assert mirror.of("bob") == DEFAULT
        elsewhere.put("alice", {})
        until(lambda: mirror.of("alice") == DEFAULT, 1.0)


def test_limits_of_before_the_start_and_of_other_data_are_read(client):
    TenantLimits(client).put("alice", {"tokens_per_minute": 5})
    with following(client) as (_, mirror, _):
        until(lambda: mirror.of("alice").tokens_per_minute == 5, 1.0)
        client.flushall()
        until(lambda: mirror.of("alice") == DEFAULT, 3.0)


def test_the_last_known_limits_hold_while_the_registry_is_away(plain_server):
    with (
        open_client(plain_server.url) as client,
        following(client) as (stored, mirror, directory),
    ):
        stored.put("alice", {"tokens_per_minute": 5})
        until(lambda: mirror.of("alice").tokens_per_minute == 5)
        plain_server.kill()
        until(lambda: directory.following is Following.DOWN)
        assert mirror.of("alice").tokens_per_minute == 5
        plain_server.start()
        TenantLimits(client).put("alice", {"tokens_per_minute": 7})
        until(lambda: mirror.of("alice").tokens_per_minute == 7)

"""Pages in order, work that does not grow, and faults, over both servers."""

import random

import pytest

from registry.adapters.adapters import Adapters
from registry.errors import (
    AdapterNotFound,
    CorruptRecord,
    InvalidArgument,
    RegistryUnavailable,
)
from registry.redis import keys
from registry.redis.client import open_client


def names(records):
    return [record.name for record in records]


def test_pages_give_every_name_once_in_order(adapters, put):
    expected = sorted(f"n{i:02d}" for i in range(25))
    for i, name in enumerate(random.Random(0).sample(expected, 25)):
        put(i + 1, name)

    found, after = [], None
    while page := adapters.list(10, after=after):
        found += names(page)
        after = found[-1]

    assert found == expected
    assert names(adapters.list(3, after="n07x")) == ["n08", "n09", "n10"]


def test_page_begins_with_a_prefix(adapters, put):
    for i, name in enumerate(["poem", "poet", "poet-2", "poets", "Poet", "prose"]):
        put(i + 1, name)

    assert names(adapters.list(9, prefix="poet")) == ["poet", "poet-2", "poets"]
    assert names(adapters.list(9, prefix="poet", after="poet-2")) == ["poets"]
    assert names(adapters.list(9, prefix="poet", after="a")) == ["poet", "poet-2", "poets"]
    assert adapters.list(9, prefix="poet", after="z") == []


def test_page_of_a_method_follows_the_latest_version(adapters, put):
    put(1, "poet", method="fourierft")
    put(2, "poet", method="loca")
    put(3, "clerk", method="loca")

    assert names(adapters.list(9, method="loca")) == ["clerk", "poet"]
    assert adapters.list(9, method="fourierft") == []
    adapters.rollback("poet")
    assert names(adapters.list(9, method="fourierft")) == ["poet"]
    adapters.delete("poet", 1)
    assert names(adapters.list(9, method="loca", after="clerk")) == ["poet"]
    adapters.delete("poet")
    assert names(adapters.list(9, method="loca")) == ["clerk"]


@pytest.mark.parametrize(
    "bad",
    [{"limit": 0}, {"limit": 1002}, {"limit": 1, "after": "\ud800"}, {"limit": 1, "prefix": "*"}]
    + [{"limit": 1, "method": "a b"}],
)
def test_page_that_cannot_be_asked_for(adapters, bad):
    with pytest.raises(InvalidArgument):
        adapters.list(**bad)


# --- cost and faults


def commands_of(client, act):
    client.config_resetstat()
    act()
    stats = client.info("commandstats")
    ours = {name: stat["calls"] for name, stat in stats.items() if "config" not in name}
    ours.pop("cmdstat_script|load", None)
    return ours


def test_publishing_costs_the_same_however_many_there_are(client, put):
    put(1, "first")
    few = commands_of(client, lambda: put(2, "second"))
    few_again = commands_of(client, lambda: put(3, "first"))
    for i in range(2000):
        put(10 + i, f"name-{i}" if i % 2 else "busy")

    many = commands_of(client, lambda: put(4, "third"))
    many_again = commands_of(client, lambda: put(5, "busy"))

    assert many == few
    assert many_again == few_again
    assert sum(many.values()) < 20


def test_page_costs_the_page_only(client, adapters, put):
    for i in range(300):
        put(i + 1, f"name-{i}")

    calls = commands_of(client, lambda: adapters.list(5))

    assert sum(calls.values()) < 20


def test_news_are_trimmed(client, put, monkeypatch):
    monkeypatch.setattr(keys, "MAX_CHANGES", 10)
    for i in range(300):
        put(i + 1)

    assert client.xlen(keys.CHANGES) < 250  # trimmed by whole nodes of the server's choice


def test_damaged_record_is_an_error_that_names_its_key(adapters, client, put):
    put(1)
    client.hset(keys.records("poet"), 1, "rubbish")

    with pytest.raises(CorruptRecord, match=r"records:poet field 1"):
        adapters.resolve("poet")


def test_observer_hears_of_every_exchange(client):
    heard, ticks = [], iter(range(100))
    adapters = Adapters(client, lambda *stats: heard.append(stats), clock=lambda: next(ticks))

    with pytest.raises(AdapterNotFound):
        adapters.resolve("nobody")
    client.set(keys.NAMES, "not an index")
    with pytest.raises(RegistryUnavailable):
        adapters.list(1)

    assert heard == [("resolve", 1, True), ("page", 1, False)]


def test_dead_server_is_unavailable_at_once_and_back_by_itself(plain_server, putter):
    with open_client(plain_server.url) as client:
        adapters = Adapters(client)
        record, _ = putter(adapters)(1)
        plain_server.kill()
        with pytest.raises(RegistryUnavailable) as caught:
            adapters.resolve("poet")
        assert "plain.sock" not in caught.value.message
        plain_server.start()

        assert adapters.resolve("poet") == record
        assert adapters.digest_is_live(record.digest)


def test_restart_between_two_calls_is_not_noticed(plain_server, putter):
    with open_client(plain_server.url) as client:
        adapters = Adapters(client)
        record, _ = putter(adapters)(1)
        plain_server.kill()
        plain_server.start()

        assert adapters.resolve("poet") == record


def test_a_page_shows_what_a_single_look_shows(adapters, put):
    put(1, "poet")
    put(2, "poet")
    put(3, "clerk")
    adapters.move_alias("poet", "prod", 1, None)

    page = adapters.list(9)
    assert page == [adapters.get("clerk"), adapters.get("poet")]
    assert page[1].aliases == {"latest": 2, "prod": 1}


def test_versions_come_page_by_page(adapters, put):
    for number in range(12):
        put(number + 1)
    adapters.delete("poet", 5)
    put(1, "clerk")
    whole = [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]

    def numbers(**named):
        return [record.version for record in adapters.versions("poet", **named)]

    assert numbers() == whole
    assert numbers(limit=3) == whole[:3]
    assert numbers(limit=3, after=3) == [4, 6, 7]
    assert numbers(limit=1000, after=11) == [12]
    assert numbers(after=12) == []
    with pytest.raises(InvalidArgument):
        numbers(limit=0)
    with pytest.raises(AdapterNotFound):
        adapters.versions("nobody", limit=3, after=2)

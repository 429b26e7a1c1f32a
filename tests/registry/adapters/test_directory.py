"""The mirror is as new as the last change, and answers when the registry cannot."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest

from registry.adapters.adapters import Adapters
from registry.adapters.changes import Position
from registry.adapters.directory import Directory, Following
from registry.adapters.sharing import Sharing
from registry.errors import AdapterNotFound, RegistryUnavailable
from registry.redis import keys
from registry.redis.client import open_client
from registry.store.ownership import Ownership
from registry.store.places import FolderPlace
from waiting import until


class CountingAdapters(Adapters):
    """Counts what is asked of the server."""

    num_asked = 0

    def resolve(self, reference):
        self.num_asked += 1
        return super().resolve(reference)


class PausedAdapters(Adapters):
    """Has read the answer, and holds it back until told to go on."""

    def __init__(self, client):
        super().__init__(client)
        self.has_read, self.go_on = Event(), Event()

    def resolve(self, reference):
        record = super().resolve(reference)
        self.has_read.set()
        assert self.go_on.wait(10)
        return record


@pytest.fixture
def asked(client):
    return CountingAdapters(client)


@pytest.fixture
def follow():
    @contextmanager
    def follow(adapters, client, **named):
        directory = Directory(adapters, client, **named)
        directory.start()
        try:
            until(lambda: directory.following is Following.CAUGHT_UP)
            yield directory
        finally:
            directory.close()

    return follow


def test_known_name_is_answered_from_memory(follow, asked, client, put):
    record, _ = put(1, alias="prod")
    with follow(asked, client) as directory:
        for reference in ("poet", "poet@latest", "poet@1", "poet@prod", f"poet@{record.digest}"):
            assert directory.resolve(reference) == record
        num_asked = asked.num_asked
        for reference in ("poet", "poet@latest", "poet@1", "poet@prod", f"poet@{record.digest}"):
            assert directory.resolve(reference) == record

    assert asked.num_asked == num_asked == 4  # the bare name and @latest are one


def test_unknown_name_is_asked_for_every_time(follow, asked, client, put):
    with follow(asked, client) as directory:
        with pytest.raises(AdapterNotFound):
            directory.resolve("poet")
        record, _ = put(1)
        assert directory.resolve("poet") == record


def test_directory_that_is_not_started_always_asks(asked, client, put):
    directory = Directory(asked, client)
    put(1)
    assert directory.resolve("poet").version == 1
    put(2)
    assert directory.resolve("poet").version == 2
    directory.close()


def test_change_elsewhere_is_seen(follow, asked, adapters, client, put):
    put(1, alias="prod")
    put(9, "clerk")
    with follow(asked, client) as directory:
        directory.resolve("poet")
        directory.resolve("clerk")
        put(2)
        until(lambda: directory.resolve("poet").version == 2)
        adapters.rollback("poet")
        until(lambda: directory.resolve("poet").version == 1)
        directory.resolve("poet@prod")
        adapters.move_alias("poet", "prod", 2, None)
        until(lambda: directory.resolve("poet@prod").version == 2)
        num_asked = asked.num_asked
        directory.resolve("clerk")
        assert asked.num_asked == num_asked  # only the changed name was forgotten

        adapters.delete("poet")
        until(lambda: is_gone(directory, "poet"))
        assert is_gone(directory, "poet@1")


def test_what_is_there_and_shared_is_answered_from_memory_until_it_changes(follow, client, put):
    ops = []
    adapters = Adapters(client, lambda op, seconds, answered: ops.append(op))
    bob = Sharing(tenants=("bob",))
    with follow(adapters, client) as directory:
        for _ in range(3):
            assert not directory.has("alice:poet")
            assert directory.sharing("alice:poet") == Sharing()
        assert sorted(ops) == ["has", "sharing"]
        put(1, "alice:poet")
        until(lambda: directory.has("alice:poet"))
        Adapters(client).share("alice:poet", bob)
        until(lambda: directory.sharing("alice:poet") == bob)
        Adapters(client).delete("alice:poet")
        until(lambda: not directory.has("alice:poet"))
        until(lambda: directory.sharing("alice:poet") == Sharing())


def is_gone(directory, reference):
    try:
        directory.resolve(reference)
    except AdapterNotFound:
        return True
    return False


def test_own_write_is_read_after_forget(asked, client, put):
    directory = Directory(asked, client)
    directory._following = Following.CAUGHT_UP  # and no thread that would hear of the change
    put(1)
    directory.resolve("poet")
    put(2)
    assert directory.resolve("poet").version == 1

    directory.forget("poet")

    assert directory.resolve("poet").version == 2


def test_old_answer_that_arrives_after_its_invalidation_is_not_kept(client, put):
    paused = PausedAdapters(client)
    directory = Directory(paused, client)
    directory._following = Following.CAUGHT_UP
    put(1)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(directory.resolve, "poet")
        assert paused.has_read.wait(10)
        put(2)
        directory.forget("clerk")
        directory.forget("poet")
        paused.go_on.set()
        assert reading.result(10).version == 1  # it began before the change

    assert directory.resolve("poet").version == 2


def test_other_names_invalidation_does_not_keep_an_answer_out(client, put):
    paused = PausedAdapters(client)
    directory = Directory(paused, client)
    directory._following = Following.CAUGHT_UP
    put(1)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(directory.resolve, "poet")
        assert paused.has_read.wait(10)
        directory.forget("clerk")
        paused.go_on.set()
        reading.result(10)
    put(2)

    assert directory.resolve("poet").version == 1


def test_least_recently_used_name_goes_first(asked, client, put):
    directory = Directory(asked, client, max_names=2)
    directory._following = Following.CAUGHT_UP
    for i, name in enumerate(["a", "b", "c"]):
        put(i + 1, name)
    for name in ["a", "b", "a", "c", "a"]:
        directory.resolve(name)

    assert asked.num_asked == 3
    directory.resolve("b")
    assert asked.num_asked == 4


def test_references_of_one_name_are_bounded(asked, client, put):
    for i in range(150):
        put(i + 1)
    directory = Directory(asked, client)
    directory._following = Following.CAUGHT_UP
    for i in range(150):
        directory.resolve(f"poet@{i + 1}")

    assert len(directory._records._names["poet"]) <= 64


def test_gap_in_the_news_forgets_everything(follow, asked, client, put):
    put(1, "poet")
    with follow(asked, client) as directory:
        directory.resolve("poet")
        # Another server published a new poet, and its news were trimmed before they were read here.
        client.incr(keys.SEQUENCE)
        put(2, "clerk")

        until(lambda: asks_again(asked, directory, "poet"))


def asks_again(asked, directory, name):
    before = asked.num_asked
    directory.resolve(name)
    return asked.num_asked > before


@pytest.fixture
def paired(client, tmp_path):
    """A registry with an id, as every program gives it one before it uses it."""
    Ownership(client, FolderPlace(tmp_path / "store"), "--data x").settle()
    return client


def test_names_of_an_emptied_registry_are_gone_at_once(follow, asked, paired, put, caplog):
    put(1, alias="prod")
    with follow(asked, paired) as directory:
        before = directory.resolve("poet@prod")
        paired.flushall()
        until(lambda: is_gone(directory, "poet@prod"), 3)
        assert "data were replaced" in caplog.text
        put(2)
        assert directory.resolve("poet").digest != before.digest
        until(lambda: not asks_again(asked, directory, "poet"))  # the mirror works on


def test_names_are_gone_from_an_emptied_registry_that_had_no_id(follow, asked, client, put):
    put(1)
    with follow(asked, client) as directory:
        directory.resolve("poet")
        client.flushall()
        until(lambda: is_gone(directory, "poet"), 3)


def dumped(client):
    return {key: client.dump(key) for key in client.keys("*")}


@pytest.mark.parametrize("is_backup", [True, False])
def test_other_data_under_the_same_address_are_answered_from(follow, asked, paired, put, is_backup):
    """As after a failover to an older copy, or where another registry takes the place."""
    put(1)
    other = dumped(paired)
    put(2)
    put(3, "clerk")
    if not is_backup:  # the changes look alike, and only the id differs
        news = (keys.CHANGES.encode(), keys.SEQUENCE.encode())
        other |= {key: value for key, value in dumped(paired).items() if key in news}
        own = paired.hget(keys.IDENTITY, "id")
        paired.hset(keys.IDENTITY, "id", "f" * 32)
        other[keys.IDENTITY.encode()] = paired.dump(keys.IDENTITY)
        paired.hset(keys.IDENTITY, "id", own)
    with follow(asked, paired) as directory:
        assert directory.resolve("poet").version == 2
        directory.resolve("clerk")
        with paired.pipeline(transaction=True) as exchange:
            exchange.flushdb()
            for key, value in other.items():
                exchange.restore(key, 0, value)
            exchange.execute()
        until(lambda: directory.resolve("poet").version == 1, 3)
        assert is_gone(directory, "clerk")


def test_a_registry_that_comes_back_empty_has_no_names(plain_server, follow, putter, tmp_path):
    with open_client(plain_server.url) as client:
        adapters = CountingAdapters(client)
        putter(adapters)(1)
        with follow(adapters, client) as directory:
            record = directory.resolve("poet")
            plain_server.kill()
            until(lambda: directory.following is Following.DOWN)
            assert directory.resolve("poet") == record
            for path in tmp_path.glob("appendonlydir/*"):
                path.unlink()
            plain_server.start()
            until(lambda: is_gone(directory, "poet"), 5)


def test_a_quiet_registry_is_not_asked_again(follow, asked, paired, put, monkeypatch):
    monkeypatch.setattr("registry.adapters.directory.BLOCK_MS", 5)
    client = paired
    put(1)
    with follow(asked, client) as directory:
        directory.resolve("poet")
        looks = client.info("commandstats")["cmdstat_xrevrange"]["calls"]
        until(lambda: client.info("commandstats")["cmdstat_xrevrange"]["calls"] > looks + 20)
        num_asked = asked.num_asked
        directory.resolve("poet")
        assert asked.num_asked == num_asked


@pytest.mark.parametrize(
    ("later", "is_possible"),
    [
        (("5-1", 7, "a"), True),
        (("5-2", 8, "a"), True),
        (("6-0", 9, "a"), True),
        (("10-0", 9, "a"), True),
        (("5-1", 7, "b"), False),
        (("5-2", 8, ""), False),
        (("0-0", 0, "a"), False),
        (("4-9", 6, "a"), False),
        (("5-2", 7, "a"), False),
        (("5-1", 8, "a"), False),
        (("4-0", 8, "a"), False),
    ],
)
def test_changes_lead_only_forward_and_within_one_registry(later, is_possible):
    assert Position("5-1", 7, "a").may_lead_to(Position(*later)) is is_possible


def test_rubbish_in_the_news_means_asking_not_old_answers(follow, asked, client, put):
    put(1)
    with follow(asked, client) as directory:
        directory.resolve("poet")
        client.xadd(keys.CHANGES, {"rubbish": "yes"})
        until(lambda: directory.following is Following.BEHIND)
        put(2)

        assert directory.resolve("poet").version == 2


def test_known_names_are_answered_while_the_registry_is_down_and_new_ones_afterwards(
    plain_server, follow, putter
):
    with open_client(plain_server.url) as client:
        adapters = CountingAdapters(client)
        put = putter(adapters)
        record, _ = put(1)
        put(1, "clerk")
        with follow(adapters, client) as directory:
            directory.resolve("poet")
            plain_server.kill()

            assert directory.resolve("poet") == record  # at once, before anybody noticed
            until(lambda: directory.following is Following.DOWN)
            num_asked = adapters.num_asked
            assert directory.resolve("poet") == record
            assert adapters.num_asked == num_asked  # no waiting for a server known to be down
            with pytest.raises(RegistryUnavailable):
                directory.resolve("clerk")

            plain_server.start()
            put(2)
            until(lambda: directory.following is Following.CAUGHT_UP)
            assert directory.resolve("poet").version == 2
            assert directory.resolve("clerk").version == 1


def test_server_that_is_down_at_the_start_is_found_later(plain_server, putter):
    with open_client(plain_server.url) as client:
        adapters = Adapters(client)
        putter(adapters)(1)
        plain_server.kill()
        directory = Directory(adapters, client)
        directory.start()
        until(lambda: directory.following is Following.DOWN)
        with pytest.raises(RegistryUnavailable):
            directory.resolve("poet")
        plain_server.start()

        until(lambda: directory.following is Following.CAUGHT_UP)
        assert directory.resolve("poet").version == 1
        directory.close()
        directory.close()


def test_a_registry_that_is_away_is_told_with_its_reason_at_a_bounded_rate(
    plain_server, putter, caplog, monkeypatch
):
    monkeypatch.setattr("registry.adapters.directory.LAST_RETRY_S", 0.01)
    monkeypatch.setattr("registry.adapters.directory.REPEAT_S", 0.2)
    caplog.set_level("INFO", "registry.adapters.directory")
    with open_client(plain_server.url) as client:
        directory = Directory(Adapters(client), client)
        directory.start()
        until(lambda: directory.following is Following.CAUGHT_UP)
        assert directory.away is None
        plain_server.kill()
        until(lambda: directory.away is not None and directory.away.seconds > 1)
        assert directory.away.reason == "nothing listens at its address"
        told = [each for each in caplog.records if each.levelname == "WARNING"]
        assert 3 <= len(told) <= 8  # of about a hundred attempts

        plain_server.start()
        until(lambda: directory.away is None)
        directory.close()
    assert "the registry is heard again" in caplog.text

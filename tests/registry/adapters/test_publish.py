"""Whatever dies between two steps, a record that can be read has a blob that can be read."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from registry.adapters.adapters import Adapters
from registry.adapters.blobs import BlobStore
from registry.adapters.publish import publish, withdraw
from registry.adapters.records import NewVersion
from registry.errors import (
    AdapterInUse,
    AdapterNotFound,
    BlobMissing,
    InvalidArgument,
    RegistryUnavailable,
)


class Crash(BaseException):
    """As final as a killed process: no handler of errors sees it."""


class CrashingAdapters(Adapters):
    """Dies before or after the step that is named."""

    def __init__(self, client, before="", after=""):
        super().__init__(client)
        self._before, self._after = before, after

    def publish(self, *args, **named):
        return self._step("publish", super().publish, *args, **named)

    def delete(self, *args):
        return self._step("delete", super().delete, *args)

    def _step(self, name, act, *args, **named):
        if self._before == name:
            raise Crash
        answer = act(*args, **named)
        if self._after == name:
            raise Crash
        return answer


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def send(adapters, store, tmp_path, describe):
    file = tmp_path / "upload"
    file.write_bytes(b"coefficients")

    def send(number=1, name="poet", *, to=adapters, blobs=store, **named):
        new = NewVersion(name=name, description=describe(number), created_at=5, **named)
        return publish(to, blobs, new, file, b"{}")

    return send


def test_published_adapter_can_be_read(adapters, store, send):
    record, created = send(alias="prod", metadata={"a": 1}, metrics={"b": 2.5}, created_by="me")

    assert created
    assert adapters.resolve("poet@prod") == record
    assert (record.metadata, record.metrics, record.created_by) == ({"a": 1}, {"b": 2.5}, "me")
    assert store.open(record.digest).file.read_bytes() == b"coefficients"
    assert send() == (record, False)


def test_crash_before_the_record_shows_nothing(client, adapters, store, send, describe):
    with pytest.raises(Crash):
        send(to=CrashingAdapters(client, before="publish"))

    assert adapters.list(10) == []
    assert store.open(describe(1).digest)  # ahead of its record, not behind it
    assert not adapters.digest_is_live(describe(1).digest)
    record, created = send()
    assert created
    assert store.open(record.digest)


def test_crash_after_the_record_shows_all_of_it(client, adapters, store, send):
    with pytest.raises(Crash):
        send(to=CrashingAdapters(client, after="publish"))

    record = adapters.resolve("poet")
    assert store.open(record.digest)
    assert adapters.digest_is_live(record.digest)
    assert send() == (record, False)


def test_store_that_cannot_be_written_leaves_no_record(adapters, send, tmp_path):
    (tmp_path / "blocked").write_text("a file where the folder should be")

    with pytest.raises(OSError, match="blocked"):
        send(blobs=BlobStore(tmp_path / "blocked"))

    assert adapters.list(10) == []


@pytest.mark.parametrize("bad", [{"name": "a/b/c"}, {"alias": "latest"}])
def test_bad_name_is_refused_before_anything_is_written(send, tmp_path, bad):
    with pytest.raises(InvalidArgument):
        send(**bad)

    assert not (tmp_path / "blobs").exists()


def test_withdrawn_adapter_leaves_no_bytes(adapters, store, send):
    record, _ = send()

    assert withdraw(adapters, store, "poet") == [record.digest]

    with pytest.raises(AdapterNotFound):
        adapters.resolve("poet")
    with pytest.raises(BlobMissing):
        store.open(record.digest)


def test_bytes_that_another_name_uses_stay(adapters, store, send):
    record, _ = send(name="poet")
    send(name="clerk")

    assert withdraw(adapters, store, "poet", 1) == []
    assert store.open(record.digest)


def test_version_in_use_keeps_its_bytes(adapters, store, send):
    record, _ = send(alias="prod")
    send(2)

    with pytest.raises(AdapterInUse):
        withdraw(adapters, store, "poet", 1)

    assert store.open(record.digest)


@pytest.mark.parametrize("when", [{"before": "delete"}, {"after": "delete"}])
def test_crash_while_withdrawing_never_leaves_a_record_without_bytes(
    client, adapters, store, send, when
):
    record, _ = send()
    with pytest.raises(Crash):
        withdraw(CrashingAdapters(client, **when), store, "poet")

    assert store.open(record.digest)  # the record goes first
    assert adapters.digest_is_live(record.digest) == ("before" in when)


def test_withdrawing_succeeds_though_the_bytes_must_wait(client, store, send):
    class Fading(Adapters):
        def digest_is_live(self, digest):
            raise RegistryUnavailable("down")

    record, _ = send()

    assert withdraw(Fading(client), store, "poet") == [record.digest]
    assert store.open(record.digest)


def test_publishing_what_is_just_being_withdrawn_keeps_its_bytes(client, adapters, store, send):
    stored, go_on = Event(), Event()

    class SlowAdapters(Adapters):
        def publish(self, *args, **named):
            stored.set()
            assert go_on.wait(10)
            return super().publish(*args, **named)

    send(name="poet")
    with ThreadPoolExecutor(2) as pool:
        publishing = pool.submit(send, 1, "clerk", to=SlowAdapters(client))
        assert stored.wait(10)  # the blob was there already, the record is not yet
        withdrawing = pool.submit(withdraw, adapters, store, "poet")
        go_on.set()
        record, _ = publishing.result(10)
        withdrawing.result(10)

    assert adapters.resolve("clerk") == record
    assert store.open(record.digest)

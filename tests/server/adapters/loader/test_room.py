"""Within the bytes that are set aside: loads wait for room, and pins keep theirs."""

import queue
import threading
from collections.abc import Callable

import pytest

from adapters_core.layers.merge import materialise
from loader_place import Place
from server.errors import AdapterTooLarge, Draining
from server_parts import FOURIERFT, LORA, Store, eventually


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_what_can_never_fit_is_refused(
    store: Store, place: Callable[..., Place], mode: str
) -> None:
    store.write("a", FOURIERFT, 1)
    store.write("large", LORA, 1, ends=("",))
    p = place(factored=1, merged=1)
    p.loader.acquire("a", mode)
    p.next()
    large = p.loader.acquire("large", mode)
    assert p.next() is large
    assert isinstance(large.error, AdapterTooLarge)
    assert p.loader.memory.modes_of("a") == [mode]


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_a_load_waits_for_room_and_takes_it_on_release(
    store: Store, place: Callable[..., Place], mode: str
) -> None:
    for digest in "ab":
        store.write(digest, FOURIERFT, 1)
    p = place(factored=1, merged=1)
    first = p.loader.acquire("a", mode)
    p.next()
    second = p.loader.acquire("b", mode)
    with pytest.raises(queue.Empty):
        p.changed.get(timeout=0.05)
    assert first.is_ready
    p.loader.release(first)
    assert p.next() is second
    assert second.is_ready
    assert not first.is_ready
    assert p.loader.memory.modes_of("a") == []
    p.check_integrity()


def test_a_load_that_nobody_waits_for_any_more_makes_room_when_it_is_done(
    store: Store, place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user went while it loaded; when it is ready, what waits for room must hear it."""
    for digest in "ab":
        store.write(digest, FOURIERFT, 1)
    p, charged, go_on = place(merged=1), threading.Event(), threading.Event()

    def slow(*args: object) -> object:
        charged.set()
        assert go_on.wait(30)
        return materialise(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("server.adapters.materializer.materialise", slow)
    first = p.loader.acquire("a", "merged")
    assert charged.wait(30)
    p.loader.release(first)
    second = p.loader.acquire("b", "merged")
    eventually(lambda: bool(p.loader.memory._room._waiters))  # type: ignore[attr-defined]
    go_on.set()
    told = [p.next(), p.next()]  # whose thread says it first is the system's to choose
    assert {id(one) for one in told} == {id(first), id(second)}
    assert second.is_ready


def test_loads_that_wait_for_one_cache_do_not_hold_up_the_other(
    store: Store, place: Callable[..., Place]
) -> None:
    for digest in "abcd":
        store.write(digest, FOURIERFT, 1)
    p = place(merged=1)
    first = p.loader.acquire("a", "merged")
    p.next()
    waiting = [p.loader.acquire(digest, "merged") for digest in "bcd"]
    quick = p.loader.acquire("a", "factored")
    assert p.next() is quick
    assert quick.is_ready
    p.loader.release(first)
    for _ in waiting:
        ready = p.next()
        assert ready.is_ready
        p.loader.release(ready)


def test_close_ends_what_waits_for_room(store: Store, place: Callable[..., Place]) -> None:
    for digest in "ab":
        store.write(digest, FOURIERFT, 1)
    p = place(factored=1)
    first = p.loader.acquire("a", "factored")
    p.next()
    second = p.loader.acquire("b", "factored")
    eventually(lambda: bool(p.loader.memory._room._waiters))  # type: ignore[attr-defined]
    p.loader.close()
    assert p.next() is second
    assert isinstance(second.error, Draining)
    assert first.is_ready


def test_adapters_that_overlap_without_end_do_not_starve_a_load(
    store: Store, place: Callable[..., Place]
) -> None:
    """Before its last user goes, each gets a next one, which waits behind the load."""
    for i, digest in enumerate("abc"):
        store.write(digest, FOURIERFT, i)
    p = place(factored=2)
    held = {digest: p.load(digest) for digest in "ab"}
    waiting = p.loader.acquire("c", "factored")
    eventually(lambda: bool(p.loader.memory._caches["factored"].queue))
    for digest, entry in list(held.items()):
        held[digest] = p.loader.acquire(digest, "factored")
        p.loader.release(entry)
    eventually(lambda: waiting.is_ready)
    for entry in [*held.values(), waiting]:
        p.loader.release(entry)
    eventually(lambda: not p.loader.memory._caches["factored"].queue)
    eventually(
        lambda: all(e.is_ready for e in p.loader.memory._caches["factored"].entries.values())
    )
    p.check_integrity()


def test_a_prefetch_finds_room_or_gives_up(store: Store, place: Callable[..., Place]) -> None:
    for i, digest in enumerate("ab"):
        store.write(digest, FOURIERFT, i)
    p = place(merged=1)
    held = p.load("a", "merged")
    assert p.next() is held
    p.loader.prefetch("b", "merged")
    given_up = p.next()
    assert not given_up.is_ready
    assert not held.is_leaving
    p.loader.release(held)
    p.loader.prefetch("b", "merged")
    assert p.next().is_ready
    assert p.loader.memory.modes_of("b") == ["merged"]
    p.check_integrity()


def test_a_pinned_adapter_stays_and_an_unpinned_one_goes(
    store: Store, place: Callable[..., Place]
) -> None:
    for i, digest in enumerate("abc"):
        store.write(digest, FOURIERFT, i)
    p = place(factored=2)
    pinned = p.load("a")
    assert p.loader.memory.pin(pinned)
    p.loader.release(pinned)
    for digest in "bc":
        p.loader.release(p.load(digest))
    assert p.loader.memory.modes_of("a") == ["factored"]
    assert p.loader.memory.pinned_bytes("factored") == (p.row_bytes, 2 * p.row_bytes)
    p.loader.memory.unpin(pinned)
    for digest in "bc":
        p.loader.release(p.load(digest))
    assert p.loader.memory.modes_of("a") == []
    p.check_integrity()


def test_what_pins_leave_no_room_for_is_refused(store: Store, place: Callable[..., Place]) -> None:
    for i, digest in enumerate("ab"):
        store.write(digest, FOURIERFT, i)
    p = place(factored=1)
    p.loader.memory.pin(p.load("a"))
    refused = p.load("b")
    assert isinstance(refused.error, AdapterTooLarge)
    assert "pinned" in str(refused.error)

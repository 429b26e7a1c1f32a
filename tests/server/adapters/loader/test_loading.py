"""Adapters into memory, each once; a load that fails leaves nothing behind."""

import queue
import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

from adapters_core.errors import AdapterError
from adapters_core.layers.bank import Bank
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection
from adapters_core.layers.merge import materialise
from loader_place import Place
from server.adapters import materializer
from server.adapters.modes import Mode
from server.adapters.payload import Factored, Merged
from server.errors import Draining, OutOfMemory
from server.telemetry.observer import CacheStats
from server_parts import CPU, FOURIERFT, Store, eventually, weights_sha256


def test_many_at_once_load_it_once(store: Store, place: Callable[..., Place]) -> None:
    store.write("a", FOURIERFT, 1)
    gate, p, entries = store.hold("a"), place(), []
    barrier = threading.Barrier(8)

    def acquire() -> None:
        barrier.wait(30)
        entries.append(p.loader.acquire("a", "factored"))

    threads = [threading.Thread(target=acquire) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not entries[0].is_ready
    gate.set()
    assert p.next() is entries[0]
    assert all(entry is entries[0] for entry in entries)
    assert entries[0].is_ready
    assert entries[0].users == 8
    assert store.opened == ["a"]
    assert p.loader.acquire("a", "factored") is entries[0]
    assert store.opened == ["a"]


def test_what_is_in_memory_is_what_the_file_says(
    store: Store, place: Callable[..., Place], injection: Injection
) -> None:
    given = store.write("a", FOURIERFT, 1)
    p = place()
    factored = p.loader.acquire("a", "factored")
    p.next()
    merged = p.loader.acquire("a", "merged")
    p.next()
    assert isinstance(factored.payload, Factored)
    assert isinstance(merged.payload, Merged)
    bank = factored.payload.bank
    assert torch.equal(bank._buffer[factored.payload.slot], bank.pack(given.methods, given.layers))
    true = materialise(given.methods, given.layers, injection.linears, BasisCache(CPU))
    assert set(merged.payload.weights) == set(true)
    for target, weight in true.items():  # the loader's threads may share a transform otherwise
        torch.testing.assert_close(merged.payload.weights[target], weight, rtol=1e-6, atol=1e-6)
    assert p.loader.memory.modes_of("a") == ["factored", "merged"]
    assert [stats.materialise_s is None for stats in p.observer.loads] == [True, False]
    assert p.num_asked > 0  # whether other threads may help with the merge


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_a_missing_blob_fails_and_is_tried_again_later(
    store: Store, place: Callable[..., Place], mode: str
) -> None:
    p = place()
    first = p.loader.acquire("a", mode)
    assert p.next() is first
    assert isinstance(first.error, FileNotFoundError)
    assert not first.is_ready
    p.check_integrity()
    store.write("a", FOURIERFT, 1)
    second = p.loader.acquire("a", mode)
    assert second is not first
    assert p.next() is second
    assert second.is_ready
    p.loader.release(first)
    assert (first.users, second.users) == (0, 1)
    p.check_integrity()


def test_a_damaged_blob_fails_by_name(store: Store, place: Callable[..., Place]) -> None:
    store.write("a", FOURIERFT, 1)
    file = store.open("a").file
    file.write_bytes(file.read_bytes()[:-8])
    p = place()
    entry = p.loader.acquire("a", "factored")
    assert p.next() is entry
    assert isinstance(entry.error, AdapterError)
    assert p.loader.memory.modes_of("a") == []


def test_a_failure_after_the_charge_gives_the_bytes_back(
    store: Store, place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*args: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("server.adapters.materializer.materialise", out_of_memory)
    store.write("a", FOURIERFT, 1)
    p = place(merged=1)
    for _ in range(3):
        entry = p.loader.acquire("a", "merged")
        assert p.next() is entry
        assert isinstance(entry.error, RuntimeError)
        assert p.loader.memory._caches["merged"].used_bytes == 0
    monkeypatch.undo()
    entry = p.loader.acquire("a", "merged")
    assert p.next().is_ready


@pytest.mark.parametrize(("mode", "place_of"), [("factored", "bank"), ("merged", "materialise")])
@pytest.mark.parametrize("times", [1, 2])
def test_a_load_that_finds_no_memory_evicts_what_is_idle_and_tries_once_more(
    store: Store,
    place: Callable[..., Place],
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    place_of: str,
    times: int,
) -> None:
    for digest in "ab":
        store.write(digest, FOURIERFT, 1)
    p = place(factored=4, merged=4)
    p.loader.release(p.load("a", mode))
    home, name = (Bank, "add") if place_of == "bank" else (materializer, "materialise")
    own, fails = getattr(home, name), [torch.OutOfMemoryError("CUDA out of memory")] * times

    def full(*args: object, **named: object) -> object:
        if fails:
            raise fails.pop()
        return own(*args, **named)

    monkeypatch.setattr(home, name, full)
    entry = p.load("b", mode)
    assert p.loader.memory.modes_of("a") == []
    assert entry.is_ready == (times == 1)
    if times == 2:
        assert isinstance(entry.error, OutOfMemory)
        assert p.load("b", mode).is_ready
    p.check_integrity()


def test_the_observer_sees_the_cache_as_it_stands(
    store: Store, place: Callable[..., Place]
) -> None:
    store.write("a", FOURIERFT, 1)
    p = place()
    p.loader.acquire("a", "factored")
    p.next()
    p.loader.acquire("a", "factored")
    last = [stats for stats in p.observer.caches if stats.cache == "coefficients"][-1]
    assert last == CacheStats("coefficients", 1, p.row_bytes, hits=1, misses=1, evictions=0)


def test_random_users_from_many_threads_leave_the_books_balanced(
    store: Store, place: Callable[..., Place], base: nn.Module
) -> None:
    digests = [str(i) for i in range(6)]
    for i, digest in enumerate(digests):
        store.write(digest, FOURIERFT, i)
    before = weights_sha256(base)
    p = place(factored=3, merged=2)
    failures: list[BaseException] = []

    def use(worker: int) -> None:
        generator = torch.Generator().manual_seed(worker)
        try:
            for _ in range(25):
                i, mode = torch.randint(0, 12, (2,), generator=generator).tolist()
                entry = p.loader.acquire(digests[i % 6], ("factored", "merged")[mode % 2])
                eventually(lambda entry=entry: entry.is_ready)  # type: ignore[misc]
                p.check_integrity(settled=False)
                assert entry.is_ready, "given up while it was in use"
                p.loader.release(entry)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    p.check_integrity()
    assert weights_sha256(base) == before


def test_who_waits_for_a_load_is_told_once(store: Store, place: Callable[..., Place]) -> None:
    store.write("a", FOURIERFT, 1)
    gate, p, told = store.hold("a"), place(), queue.Queue[str]()
    entry = p.loader.acquire("a", "factored")
    p.loader.when_done(entry, lambda: told.put("waited"))
    assert told.empty()
    gate.set()
    assert told.get(timeout=30) == "waited"
    p.loader.when_done(entry, lambda: told.put("at once"))
    assert told.get_nowait() == "at once"
    missing = p.loader.acquire("missing", "factored")
    p.loader.when_done(missing, lambda: told.put("failed"))
    assert told.get(timeout=30) == "failed"
    assert told.empty()


def test_a_closed_loader_takes_nothing(place: Callable[..., Place]) -> None:
    p = place()
    p.loader.close()
    with pytest.raises(Draining):
        p.loader.acquire("a", "factored")

"""Adapters into memory, each once, within the bytes that are set aside."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from adapters_core.base.spec import spec_of
from adapters_core.errors import AdapterError
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection, inject
from adapters_core.layers.merge import materialise
from adapters_core.methods import FourierFT
from server.adapters.loader import Loader
from server.adapters.memory import Capacities
from server.adapters.modes import Mode
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.base.resident import ResidentBase
from server.errors import AdapterTooLarge, Draining
from server.telemetry.observer import CacheStats, LoadStats, Observer
from server_parts import (
    CPU,
    FOURIERFT,
    LORA,
    QUERY_VALUE,
    Store,
    eventually,
    torch_threads,
    weights_sha256,
)


@dataclass
class Remembering(Observer):
    """Keeps what it was told."""

    loads: list[LoadStats] = field(default_factory=list)
    caches: list[CacheStats] = field(default_factory=list)

    def on_load(self, stats: LoadStats) -> None:
        self.loads.append(stats)

    def on_cache(self, stats: CacheStats) -> None:
        self.caches.append(stats)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return tiny.model("llama", num_hidden_layers=1)


@pytest.fixture
def injection(base: nn.Module) -> Iterator[Injection]:
    made = inject(base)
    yield made
    made.undo()


@pytest.fixture
def store(tmp_path: Path, base: nn.Module) -> Store:
    return Store(tmp_path, spec_of(base, "tiny"))


class Place:
    """A loader with room for so many adapters of each mode, and the entries it reported."""

    def __init__(
        self,
        store: Store,
        injection: Injection,
        factored: int,
        merged: int,
        basis_bytes: int = 1 << 30,
        host: int = 0,
    ) -> None:
        spec = store.spec
        targets = [t for t in spec.targets if t.endswith(QUERY_VALUE)]
        layout = Layout.of(dict.fromkeys(targets, FOURIERFT), spec.targets)
        self.row_bytes = 4 * layout.width
        self.merged_bytes = sum(4 * spec.targets[t].out * spec.targets[t].in_ for t in targets)
        self.changed: queue.Queue[Entry] = queue.Queue()
        self.observer = Remembering()
        self.loader = Loader(
            store.open,
            ResidentBase(spec, injection, BasisCache(CPU)),
            Capacities(
                factored * self.row_bytes,
                basis_bytes,
                merged * self.merged_bytes,
                host * self.row_bytes,
            ),
            self.observer,
            self.changed.put,
        )

    def load(self, digest: str, mode: Mode = "factored") -> Entry:
        """Return a lease once it is ready or has failed."""
        entry = self.loader.acquire(digest, mode)
        eventually(lambda: entry.is_ready or entry.error is not None)
        return entry

    def next(self) -> Entry:
        """Return the entry that is reported next."""
        return self.changed.get(timeout=30)

    def check_integrity(self, settled: bool = True) -> None:
        """Check the books; unless `settled`, a load may stand between its slot and its entry."""
        with self.loader.memory._room:
            for cache in self.loader.memory._caches.values():
                cache.check_integrity()
            entries = self.loader.memory._caches["factored"].entries.values()
            used = [
                (id(e.payload.bank), e.payload.slot)
                for e in entries
                if isinstance(e.payload, Factored)
            ]
            assert len(set(used)) == len(used), "two adapters in one slot"
            for bank in self.loader.memory._banks:
                own = {slot for owner, slot in used if owner == id(bank)}
                assert not set(bank._free) & own
                known = len(bank._free) + len(own)
                assert known <= bank._buffer.shape[0]
                assert not settled or known == bank._buffer.shape[0] - 1, "a slot is lost"


@pytest.fixture
def place(store: Store, injection: Injection) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def build(
        factored: int = 4, merged: int = 2, basis_bytes: int = 1 << 30, host: int = 0
    ) -> Place:
        made.append(Place(store, injection, factored, merged, basis_bytes, host))
        return made[-1]

    yield build
    for one in made:
        one.loader.close()


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


def _basis_bytes(store: Store, method: FourierFT) -> int:
    targets = [t for t in store.spec.targets if t.endswith(QUERY_VALUE)]
    bank = Bank(Layout.of(dict.fromkeys(targets, method), store.spec.targets), BasisCache(CPU))
    return sum(bank.basis_memory.values())


def _bytes_of_bases(p: "Place") -> int:
    memory: dict[int, int] = {}
    for bank in p.loader.memory._banks:
        memory |= bank.basis_memory
    return sum(memory.values())


def test_what_seeds_give_is_bounded_however_many_there_are(
    store: Store, place: Callable[..., Place]
) -> None:
    methods = [replace(FOURIERFT, seed=seed) for seed in range(6)]
    most = max(_basis_bytes(store, method) for method in methods)
    p = place(factored=100, basis_bytes=2 * most)
    for name, method in enumerate(methods):
        store.write(str(name), method, 1)
        entry = p.loader.acquire(str(name), "factored")
        assert p.next() is entry
        assert entry.is_ready
        assert _bytes_of_bases(p) <= 2 * most
        p.loader.release(entry)
        p.check_integrity()
    assert p.loader.memory.modes_of("5") == ["factored"]
    assert p.loader.memory.modes_of("0") == []
    assert len(list(p.loader.memory._banks)) == 2


def test_bases_too_large_for_the_server_are_refused(
    store: Store, place: Callable[..., Place]
) -> None:
    store.write("a", FOURIERFT, 1)
    p = place(basis_bytes=1024)
    entry = p.loader.acquire("a", "factored")
    assert p.next() is entry
    assert isinstance(entry.error, AdapterTooLarge)
    assert "1024 are set aside" in str(entry.error)
    assert not list(p.loader.memory._banks)


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
    """Its user went while it loaded; when it is ready, the one who waits for room must hear it."""
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


def test_slots_are_freed_on_eviction_and_not_before(
    store: Store, place: Callable[..., Place]
) -> None:
    for i, digest in enumerate("abc"):
        store.write(digest, FOURIERFT, i)
    p = place(factored=2)
    slots = {}
    for digest in "ab":
        entry = p.loader.acquire(digest, "factored")
        p.next()
        slots[digest] = entry.payload.slot
        p.loader.release(entry)
    bank = entry.payload.bank
    assert len(bank._free) == bank._buffer.shape[0] - 3  # two taken, one is always empty
    third = p.loader.acquire("c", "factored")
    p.next()
    assert third.payload.slot == slots["a"], "the least recently used one's"
    assert entry.payload.slot == slots["b"]
    assert len(bank._free) == bank._buffer.shape[0] - 3  # two taken, one is always empty
    p.check_integrity()


def test_an_empty_bank_goes_with_its_last_adapter(
    store: Store, place: Callable[..., Place]
) -> None:
    store.write("a", FOURIERFT, 1)
    store.write("b", replace(FOURIERFT, seed=1), 2)
    p = place(factored=1)
    first = p.loader.acquire("a", "factored")
    p.next()
    p.loader.release(first)
    bank = first.payload.bank
    second = p.loader.acquire("b", "factored")
    p.next()
    assert bank.is_empty
    assert list(p.loader.memory._banks) == [second.payload.bank]
    p.check_integrity()


def test_methods_of_one_layout_share_a_bank_and_others_do_not(
    store: Store, place: Callable[..., Place]
) -> None:
    store.write("a", FOURIERFT, 1)
    store.write("b", FOURIERFT, 2)
    store.write("c", LORA, 3)
    p = place(factored=40)
    entries = {}
    for digest in "abc":
        entries[digest] = p.loader.acquire(digest, "factored")
        p.next()
    banks = {digest: id(entry.payload.bank) for digest, entry in entries.items()}
    assert banks["a"] == banks["b"] != banks["c"]


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


def test_what_leaves_the_device_comes_back_from_the_hosts_memory(
    store: Store, place: Callable[..., Place]
) -> None:
    """Without opening its file again, and with the same bits."""
    for i, digest in enumerate("ab"):
        store.write(digest, FOURIERFT, i)
    p = place(factored=1, host=2)
    first = p.load("a")
    row = first.payload.bank.row(first.payload.slot)
    p.loader.release(first)
    p.loader.release(p.load("b"))
    assert p.loader.memory.modes_of("a") == []
    again = p.load("a")
    assert torch.equal(again.payload.bank.row(again.payload.slot), row)
    assert store.opened == ["a", "b"]
    assert [stats.method for stats in p.observer.loads] == ["fourierft"] * 3
    host = [stats for stats in p.observer.caches if stats.cache == "host"][-1]
    assert (host.num_entries, host.hits, host.misses) == (1, 1, 2)
    assert host.size_bytes == p.row_bytes
    p.check_integrity()


def test_a_bank_that_is_gone_is_made_again_from_the_hosts_memory(
    store: Store, place: Callable[..., Place]
) -> None:
    store.write("a", FOURIERFT, 1)
    store.write("b", replace(FOURIERFT, seed=1), 2)
    p = place(factored=1, host=2)
    p.loader.release(p.load("a"))
    p.loader.release(p.load("b"))
    assert len(list(p.loader.memory._banks)) == 1
    assert p.load("a").is_ready
    assert store.opened == ["a", "b"]
    p.check_integrity()


def test_the_hosts_memory_is_bounded(store: Store, place: Callable[..., Place]) -> None:
    for i, digest in enumerate("abcd"):
        store.write(digest, FOURIERFT, i)
    p = place(factored=1, host=2)
    for digest in "abcd":
        p.loader.release(p.load(digest))
    assert list(p.loader.memory._host.copies) == ["b", "c"]
    assert p.loader.memory._host.used_bytes == 2 * p.row_bytes
    p.loader.release(p.load("a"))
    assert store.opened == ["a", "b", "c", "d", "a"]


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


def test_two_new_banks_do_not_wait_for_each_others_room(
    store: Store, place: Callable[..., Place]
) -> None:
    """The bases of one fit; two loads at once take turns."""
    methods = [replace(FOURIERFT, seed=seed) for seed in range(4)]
    most = max(_basis_bytes(store, method) for method in methods)
    for i, method in enumerate(methods):
        store.write(str(i), method, i)
    p = place(factored=100, basis_bytes=most + most // 2)
    entries = [p.loader.acquire(str(i), "factored") for i in range(4)]
    for _ in entries:
        entry = p.next()
        assert entry.error is None
        p.loader.release(entry)
    assert _bytes_of_bases(p) <= most + most // 2
    p.check_integrity()


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

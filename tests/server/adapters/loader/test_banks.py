"""Slots, banks and bases: shared by which adapters, freed when; copies in the host's memory."""

from collections.abc import Callable
from dataclasses import replace

import torch

from loader_place import Place, bytes_of_bases, bytes_of_basis
from server.errors import AdapterTooLarge
from server_parts import FOURIERFT, LORA, Store


def test_what_seeds_give_is_bounded_however_many_there_are(
    store: Store, place: Callable[..., Place]
) -> None:
    methods = [replace(FOURIERFT, seed=seed) for seed in range(6)]
    most = max(bytes_of_basis(store, method) for method in methods)
    p = place(factored=100, basis_bytes=2 * most)
    for name, method in enumerate(methods):
        store.write(str(name), method, 1)
        entry = p.loader.acquire(str(name), "factored")
        assert p.next() is entry
        assert entry.is_ready
        assert bytes_of_bases(p) <= 2 * most
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


def test_two_new_banks_do_not_wait_for_each_others_room(
    store: Store, place: Callable[..., Place]
) -> None:
    """The bases of one fit; two loads at once take turns."""
    methods = [replace(FOURIERFT, seed=seed) for seed in range(4)]
    most = max(bytes_of_basis(store, method) for method in methods)
    for i, method in enumerate(methods):
        store.write(str(i), method, i)
    p = place(factored=100, basis_bytes=most + most // 2)
    entries = [p.loader.acquire(str(i), "factored") for i in range(4)]
    for _ in entries:
        entry = p.next()
        assert entry.error is None
        p.loader.release(entry)
    assert bytes_of_bases(p) <= most + most // 2
    p.check_integrity()

"""Nothing that is loaded, merged, evicted or answered ever changes the resident base."""

from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from random import Random

import pytest
import torch

import tiny
from adapters_core.base.spec import spec_of
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from server.adapters.loader import Loader
from server.adapters.memory import Capacities
from server.adapters.modes import Mode
from server.adapters.residency import Entry
from server.base.resident import ResidentBase
from server.engine.engine import Engine
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import TokenSequence
from server.telemetry.observer import Observer
from server_parts import (
    CPU,
    FOURIERFT,
    LORA,
    PAGE_SIZE,
    QUERY_VALUE,
    Store,
    greedy,
    prompt_of,
    torch_threads,
    weights_sha256,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def exercise(folder: Path, dtype: torch.dtype, rounds: int) -> None:
    """Merge, evict and answer in any order; a prompt of the base alone answers the same after."""
    model = tiny.model("llama", num_hidden_layers=1).to(dtype)
    store = Store(folder, spec_of(model, "tiny"))
    digests = [store_one(store, i) for i in range(7)]
    before = weights_sha256(model)
    injection = inject(model)
    engine, changed = Engine(injection, num_pages=8), Queue[Entry]()
    observer, random = Observer(), Random(1)
    largest = sum(2 * dtype.itemsize * s.out * s.in_ for s in store.spec.targets.values())
    loader = Loader(
        store.open,
        ResidentBase(store.spec, injection, BasisCache(CPU)),
        Capacities(40_000, 1 << 30, largest),
        observer,
        changed.put,
    )

    def answer(entries: list[Entry | None]) -> list[list[int]]:
        scheduler, sequences = Scheduler(PagePool(8, PAGE_SIZE), 16, 8), []
        for i, entry in enumerate(entries):
            sequences.append(TokenSequence(prompt_of(5 + i, i), greedy(3), entry))
            scheduler.add(sequences[-1])
        while batch := scheduler.next(0.0):
            tokens = engine.step(batch)
            scheduler.advance(batch, [token for token in tokens if token is not None])
        return [one.tokens for one in sequences]

    base_alone = answer([None])
    for _ in range(rounds):
        modes: list[Mode] = random.choices(["factored", "merged"], k=2)
        entries = [loader.acquire(random.choice(digests), mode) for mode in modes]
        while not all(entry.is_ready for entry in entries):
            changed.get(timeout=30)
        answer([entries[0], None, entries[1]])
        for entry in entries:
            loader.release(entry)
    evictions = sum(cache.evictions for cache in loader.memory._caches.values())
    loader.close()
    injection.undo()
    assert evictions > rounds / 10, "nothing was put to the test"
    assert weights_sha256(model) == before
    assert store.spec == spec_of(model, "tiny")
    injection.switch.plan = None
    assert answer([None]) == base_alone


def store_one(store: Store, number: int) -> str:
    method = (FOURIERFT, LORA)[number % 2]
    store.write(f"d{number}", method, number, ends=(QUERY_VALUE, ("",))[number % 3 == 0])
    return f"d{number}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fifty_rounds_leave_every_weight_as_it_was(tmp_path: Path, dtype: torch.dtype) -> None:
    exercise(tmp_path, dtype, rounds=50)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_thousand_rounds_leave_every_weight_as_it_was(tmp_path: Path, dtype: torch.dtype) -> None:
    exercise(tmp_path, dtype, rounds=1000)

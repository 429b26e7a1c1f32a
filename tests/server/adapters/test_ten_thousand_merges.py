"""Ten thousand merges and evictions in any order leave every bit of the base as it was.

The default run does a few hundred; `./run test slow` all of them. What is merged is looked at too:
one adapter's merged weights are the same bits every time, whoever's memory they are written into.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from queue import Queue
from random import Random

import pytest
import torch
from torch import Tensor, nn

import tiny
from adapters_core.base.spec import spec_of, weights_of
from adapters_core.contract.method import Method
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection, inject
from adapters_core.layers.merge import materialise
from adapters_core.methods import (
    C3A,
    CLoRA,
    DoRA,
    FourierFT,
    FRoD,
    LoCA,
    LoRA,
    SHiRA,
    TinyLoRA,
    VeRA,
    WaveletFT,
)
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
    PAGE_SIZE,
    QUERY_VALUE,
    Given,
    Store,
    given,
    greedy,
    prompt_of,
    torch_threads,
    weights_sha256,
)

METHODS: tuple[Method, ...] = (
    FourierFT(n=40),
    FourierFT(n=40, seed=5),
    LoCA(n=40),
    WaveletFT(n=40),
    WaveletFT(n=40, wavelet="db3"),
    FRoD(sparse_rate=0.03),
    CLoRA(r=2, num_spaces=3),
    LoRA(r=3),
    DoRA(r=3),
    VeRA(r=3),
    C3A(block_size=16),
    SHiRA(r=2),
    TinyLoRA(r=2, u=5),
)
#: Of the same in a server's life: what its files hold without the base's own weights.
SERVED = tuple(method for method in METHODS if not method.needs_base)
EVERY = ("",)
MANY = 10_000
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def one_layer(dtype: torch.dtype) -> nn.Module:
    return tiny.model("llama", num_hidden_layers=1).to(dtype)


def bits(weights: Mapping[str, Tensor]) -> str:
    digest = sha256()
    for target in sorted(weights):
        digest.update(target.encode())
        digest.update(weights[target].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def merge_often(dtype: torch.dtype, merges: int) -> None:
    """Keep three merged copies, as a loader does, and write each new one over the oldest's."""
    model = one_layer(dtype)
    spec = spec_of(model, "tiny")
    before, bases = weights_sha256(model), BasisCache(CPU, weights_of(model, spec))
    adapters = [
        given(spec, method, seed, ends, bases)
        for seed, method in enumerate(METHODS)
        for ends in (QUERY_VALUE, EVERY)
    ]
    injection, random = inject(model), Random(1)
    places = {t: linear.golden().data_ptr() for t, linear in injection.linears.items()}
    first: dict[int, str] = {}
    kept: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
    evictions = 0
    for _ in range(merges):
        number = random.randrange(len(adapters))
        old = kept.pop(number, None)  # as if it had been evicted just now
        if old is None and len(kept) == 3:
            _, old = kept.popitem(last=False)
            evictions += 1
        merged = merge(adapters[number], injection, bases, old)
        assert first.setdefault(number, bits(merged)) == bits(merged)
        kept[number] = merged
    assert evictions > merges / 2
    assert len(set(first.values())) == len(adapters)
    assert places == {t: linear.golden().data_ptr() for t, linear in injection.linears.items()}
    injection.undo()
    assert weights_sha256(model) == before
    assert spec_of(model, "tiny") == spec


def merge(
    adapter: Given, injection: Injection, bases: BasisCache, old: dict[str, Tensor] | None
) -> dict[str, Tensor]:
    return materialise(adapter.methods, adapter.layers, injection.linears, bases, old)


@pytest.mark.parametrize("dtype", DTYPES)
def test_hundreds_of_merges_leave_every_bit_of_the_base(dtype: torch.dtype) -> None:
    merge_often(dtype, 300)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ten_thousand_merges_leave_every_bit_of_the_base(dtype: torch.dtype) -> None:
    merge_often(dtype, MANY)


class Life:
    """A loader with room for two merged copies, an engine, and a base that must not change."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.model = one_layer(dtype)
        self.spec = spec_of(self.model, "tiny")
        bases = BasisCache(CPU, weights_of(self.model, self.spec))
        self.store, self.digests = Store(folder, self.spec), []
        for seed, method in enumerate(SERVED):
            for ends in (QUERY_VALUE, EVERY):
                adapter = given(self.spec, method, seed, ends, bases)
                self.digests.append(f"d{len(self.digests)}")
                place = folder / self.digests[-1]
                write_adapter(place, adapter.methods, adapter.layers, self.spec)
        self.before = weights_sha256(self.model)
        self.injection = inject(self.model)
        self.engine = Engine(self.injection, num_pages=8)
        self.changed: Queue[Entry] = Queue()
        shapes = self.spec.targets.values()
        self.loader = Loader(
            self.store.open,
            ResidentBase(self.spec, self.injection, bases),
            Capacities(50_000, 1 << 30, 2 * sum(dtype.itemsize * s.out * s.in_ for s in shapes)),
            Observer(),
            self.changed.put,
        )

    def hold(self, digest: str, mode: Mode) -> Entry:
        entry = self.loader.acquire(digest, mode)
        while not entry.is_ready:
            assert entry.error is None, entry.error
            self.changed.get(timeout=30)
        return entry

    def answer(self, *entries: Entry | None) -> list[list[int]]:
        """Return what one batch answers, one row a lease; None is the base."""
        scheduler, sequences = Scheduler(PagePool(8, PAGE_SIZE), 16, 8), []
        for i, entry in enumerate(entries):
            sequences.append(TokenSequence(prompt_of(5 + i, i), greedy(3), entry))
            scheduler.add(sequences[-1])
        while batch := scheduler.next(0.0):
            tokens = self.engine.step(batch)
            scheduler.advance(batch, [token for token in tokens if token is not None])
        return [one.tokens for one in sequences]


def live_long(folder: Path, dtype: torch.dtype, merges: int) -> None:
    """Load, merge, evict and answer, factored rows beside merged ones and the base's own."""
    life, random = Life(folder, dtype), Random(2)
    alone = life.answer(None)
    caches = life.loader.memory._caches
    while caches["merged"].misses < merges:
        merged = life.hold(random.choice(life.digests), "merged")
        held = [merged]
        if caches["merged"].misses % 8 == 0:
            held.append(life.hold(random.choice(life.digests), "factored"))
            assert life.answer(None, *held)[0] == alone[0]
        for entry in held:
            life.loader.release(entry)
    assert caches["merged"].evictions > merges / 2
    assert caches["factored"].evictions > merges / 50
    life.loader.close()
    life.injection.undo()
    assert weights_sha256(life.model) == life.before
    assert life.answer(None) == alone


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loaders_life_leaves_every_bit_of_the_base(tmp_path: Path, dtype: torch.dtype) -> None:
    live_long(tmp_path, dtype, 150)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ten_thousand_loads_leave_every_bit_of_the_base(tmp_path: Path, dtype: torch.dtype) -> None:
    live_long(tmp_path, dtype, MANY)


def test_injecting_and_undoing_returns_the_very_modules() -> None:
    model = one_layer(torch.float32)
    before, modules = weights_sha256(model), dict(model.named_modules())
    for _ in range(20):
        injection = inject(model)
        assert all(model.get_submodule(t) is linear for t, linear in injection.linears.items())
        assert all(linear.base is modules[t] for t, linear in injection.linears.items())
        injection.undo()
    assert dict(model.named_modules()) == modules
    assert weights_sha256(model) == before

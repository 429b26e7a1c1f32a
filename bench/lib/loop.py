"""The bare engine loop, without HTTP or threads: from adapters to their tokens."""

from pathlib import Path

import torch

from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.contract.method import Method
from adapters_core.format.read import Adapter, read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection, inject
from bench.lib.bases import VOCABULARY, llama, prompt_of, random_adapter, targets_of
from server.adapters.payload import Factored
from server.adapters.residency import Entry
from server.engine.engine import Engine
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampling, TokenSequence

Leases = list[Entry | None]
PROMPT = 64
PAGE_SIZE = 32
_MAX_ROWS, _MAX_RUNNING = 512, 64


class EngineOfBase:
    """An engine over a random base of the benches' shape, and what its adapters need."""

    def __init__(self, width: int, layers: int, pages: int, vocabulary: int = VOCABULARY) -> None:
        model = llama(width, layers, vocabulary)
        self.vocabulary = vocabulary
        self.spec: BaseSpec = spec_of(model, "bench")
        self.injection: Injection = inject(model)
        self.bases = BasisCache(torch.device("cpu"))
        self.engine = Engine(self.injection, pages)


def read(folder: Path, spec: BaseSpec) -> Adapter:
    """Return the checked adapter in PEFT's folder."""
    config = (folder / CONFIG_NAME).read_bytes()
    return read_adapter(folder / WEIGHTS_NAME, config, spec)


class Packer:
    """Makes leases of adapters of one layout, side by side in one bank."""

    def __init__(self, spec: BaseSpec, bases: BasisCache | None = None) -> None:
        self.spec = spec
        self.bases = bases or BasisCache(torch.device("cpu"))
        self.bank: Bank | None = None

    def pack(self, adapter: Adapter, key: str) -> Entry:
        """Return a lease of a slot that now holds the adapter."""
        if self.bank is None:
            self.bank = Bank(Layout.of(adapter.methods, self.spec.targets), self.bases)
        slot = self.bank.add(self.bank.pack(adapter.methods, adapter.layers))
        return Entry((key, "factored"), payload=Factored(self.bank, slot))

    def from_file(self, folder: Path) -> Entry:
        """Return a lease of the adapter in a folder."""
        return self.pack(read(folder, self.spec), str(folder))


def factored(spec: BaseSpec, bases: BasisCache, method: Method, which: str, count: int) -> Leases:
    """Return leases of `count` different random adapters of `qv` or `seven` linears."""
    shapes = {target: spec.targets[target] for target in targets_of(spec, which)}
    bank = Bank(Layout.of(method.of_layers(shapes), shapes), bases)
    leases: Leases = []
    for i in range(count):
        slot = bank.add(bank.pack(*random_adapter(method, shapes, bases, i)))
        leases.append(Entry((str(i), "factored"), payload=Factored(bank, slot)))
    return leases


def run_to_end(engine: Engine, leases: Leases, pages: int, new: int, first: int = 0) -> int:
    """Generate `new` tokens for every lease from its own prompt; return the tokens generated.

    Args:
        engine: its cache is not used by anything else meanwhile.
        leases: of each sequence's adapter; None is the base.
        pages: of the engine's cache.
        new: tokens of each answer.
        first: number of the first sequence's prompt.
    """
    scheduler = Scheduler(PagePool(pages, PAGE_SIZE), _MAX_ROWS, _MAX_RUNNING)
    for number, lease in enumerate(leases, first):
        sampling = Sampling(max_tokens=new, temperature=0)
        scheduler.add(TokenSequence(tuple(prompt_of(number, PROMPT)), sampling, lease))
    while batch := scheduler.next(0.0):
        scheduler.advance(batch, [token for token in engine.step(batch) if token])
    return new * len(leases)

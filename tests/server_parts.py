"""Tiny served bases, adapters in memory and on disk, and a loop that runs sequences in place."""

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from adapters_core.base.causal_probe import with_causal_targets
from adapters_core.base.spec import BaseSpec, spec_of, weight_of, weights_of
from adapters_core.contract.method import Coefficients, Method
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME, write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection, inject
from adapters_core.layers.merge import materialise
from adapters_core.methods import FourierFT, LoRA
from made import random_adapter
from registry import BlobPaths
from server.adapters.modes import Mode
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.engine.engine import Engine
from server.engine.sampler import sample
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampling, TokenSequence

CPU = torch.device("cpu")
PAGE_SIZE = 32
#: Ends of the paths of query and value projections, in every tiny shape.
QUERY_VALUE = ("q_proj", "v_proj", "attn.c_attn", "query_key_value", "Wqkv", "qkv_proj")
FOURIERFT = FourierFT(n=40)
LORA = LoRA(r=3)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Given:
    """An adapter's coefficients, and the method of each of its layers."""

    methods: Mapping[str, Method]
    layers: Mapping[str, Coefficients]


def given(
    spec: BaseSpec,
    method: Method,
    seed: int,
    ends: tuple[str, ...] = ("",),
    bases: BasisCache | None = None,
) -> Given:
    """Return an adapter of the layers whose paths end so, about as large as the base's weights.

    A method that needs the base's weights needs `bases` that have them.
    """
    shapes = {target: shape for target, shape in spec.targets.items() if target.endswith(ends)}
    assert shapes
    size = 0.2 if isinstance(method, LoRA) else 1.0
    return Given(*random_adapter(method, shapes, bases or BasisCache(CPU), seed, size))


class Served:
    """A base with its linears injected, an engine on it, and a copy that stays as it is."""

    def __init__(
        self,
        model: nn.Module,
        num_pages: int = 100,
        on_device: bool | None = None,
        deterministic: bool = False,
    ) -> None:
        self.plain = copy.deepcopy(model)
        self.spec = with_causal_targets(spec_of(model, "tiny"), model, 64)
        device = next(model.parameters()).device
        self.bases = BasisCache(device, weights_of(model, self.spec))
        self.injection: Injection = inject(model, self.spec.layers, self.spec.kept_layers)
        self.num_pages = num_pages
        self.engine = Engine(self.injection, num_pages, PAGE_SIZE, deterministic, on_device)
        self._banks: dict[object, Bank] = {}
        self._num_entries = 0

    def entry(self, adapter: Given, mode: Mode) -> Entry:
        """Return the adapter as a loader would have it in memory."""
        if mode == "merged":
            return Entry(self._key(mode), payload=Merged(self._weights(adapter.methods, adapter)))
        layout = Layout.of(adapter.methods, self.spec.layers)
        bank = self._banks.setdefault(layout.key, Bank(layout, self.bases, 2, adapter.layers))
        slot = bank.add(bank.pack(adapter.methods, adapter.layers))
        whole = {t: method for t, method in adapter.methods.items() if not method.is_factored}
        payload = Factored(bank, slot, weights=self._weights(whole, adapter))
        return Entry(self._key(mode), payload=payload)

    def _weights(self, methods: Mapping[str, Method], adapter: Given) -> dict[str, Tensor]:
        layers = {target: adapter.layers[target] for target in methods}
        return materialise(methods, layers, self.injection.layers, self.bases)

    def _key(self, mode: Mode) -> tuple[str, Mode]:
        """Return a key of its own: adapters with one key would share their prompts' pages."""
        self._num_entries += 1
        return f"test {self._num_entries}", mode

    def merged_copy(self, adapter: Given | None) -> nn.Module:
        """Return a plain copy of the base with the adapter's dense deltas added."""
        model = copy.deepcopy(self.plain)
        if adapter is None:
            return model
        for target, layer in adapter.layers.items():
            shape, method = self.spec.layers[target], adapter.methods[target]
            basis = self.bases.get(method, shape, target, layer)
            with torch.no_grad():
                weight_of(model.get_submodule(target)).add_(method.delta(layer, shape, basis))
        return model

    def run(
        self,
        sequences: Sequence[TokenSequence],
        max_rows: int = 512,
        max_running: int = 64,
        pool: PagePool | None = None,
    ) -> dict[TokenSequence, Tensor]:
        """Run all to their ends; return the logits `[generated, vocabulary]` of each."""
        pool = pool or PagePool(self.num_pages, PAGE_SIZE)
        scheduler = Scheduler(pool, max_rows, max_running)
        for sequence in sequences:
            sequence.border = self.engine.border
            scheduler.add(sequence)
        logits: dict[TokenSequence, list[Tensor]] = {sequence: [] for sequence in sequences}
        while batch := scheduler.next(0.0):
            rows = self.engine.logits(batch)
            told = [work.sequence for work in batch.works if work.samples]
            for sequence, row in zip(told, rows, strict=True):
                logits[sequence].append(row.clone())
            with torch.inference_mode():
                sampled = sample(rows, told)
            scheduler.advance(batch, [s for s in sampled if s is not None])
            scheduler.check_integrity()
        assert all(sequence.finish_reason for sequence in sequences)
        return {sequence: torch.stack(rows) for sequence, rows in logits.items()}


def greedy(max_tokens: int, stop_ids: frozenset[int] = frozenset()) -> Sampling:
    return Sampling(max_tokens=max_tokens, temperature=0, stop_ids=stop_ids)


def prompt_of(length: int, seed: int) -> tuple[int, ...]:
    """Return random tokens of the tiny vocabulary, without its end."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, 256, (length,), generator=generator).tolist())


def scattered_pool(num_pages: int) -> PagePool:
    """Return a pool of every second page of twice as many: none has a neighbour."""
    pool = PagePool(num_pages, PAGE_SIZE)
    pool._free = list(range(1, 2 * num_pages, 2))
    return pool


def weights_sha256(model: nn.Module) -> str:
    """Return a digest of every parameter's and buffer's name and bytes."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass
class Store:
    """A folder of adapters by digest; counts what is opened, and waits at `gate` first."""

    root: Path
    spec: BaseSpec
    opened: list[str] = field(default_factory=list)
    gates: dict[str, threading.Event] = field(default_factory=dict)

    def write(
        self, digest: str, method: Method, seed: int, ends: tuple[str, ...] = QUERY_VALUE
    ) -> Given:
        adapter = given(self.spec, method, seed, ends)
        write_adapter(self.root / digest, adapter.methods, adapter.layers, self.spec)
        return adapter

    def hold(self, digest: str) -> threading.Event:
        """Make loads of `digest` wait until the returned event is set."""
        return self.gates.setdefault(digest, threading.Event())

    def open(self, digest: str) -> BlobPaths:
        self.opened.append(digest)
        if digest in self.gates:
            assert self.gates[digest].wait(30), "the gate was not opened"
        if not (self.root / digest).is_dir():
            raise FileNotFoundError(f"no blob {digest}")
        return BlobPaths(self.root / digest / WEIGHTS_NAME, self.root / digest / CONFIG_NAME)


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until a condition that other threads bring about is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.001)

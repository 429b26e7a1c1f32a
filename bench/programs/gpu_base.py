"""The base that gpu.py measures, its adapters, and what is done with them once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from adapters_core.base.spec import spec_of
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.contract.rows import Rows
from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME, write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from adapters_core.methods import FourierFT, LoCA, LoRA, WaveletFT
from bench.lib.bases import prompt_of, random_adapter, targets_of
from bench.lib.device_timing import wait_for
from bench.lib.timing import interleaved
from bench.programs.gpu_shape import Sizes, random_llama
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.engine.attention_device import DeviceCache
from server.engine.engine import Engine
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

_PROMPT, _NEW = 64, 64
#: Tokens that a decode step's rows see, their own included.
CONTEXT = 128
PAGE_SIZE = 32
_PAGES = 32 * CONTEXT // PAGE_SIZE + 8


class GpuBase:
    """One engine on the device's way, and adapters in it.

    Args:
        sizes: of the base.
        bases: of the adapters; None: its own.
    """

    def __init__(self, sizes: Sizes, bases: BasisCache | None = None) -> None:
        self.sizes = sizes
        self.model = random_llama(sizes)
        self.num_parameters = sum(p.numel() for p in self.model.parameters())
        self.spec = spec_of(self.model, "bench")
        self.injection = inject(self.model)
        self.bases = bases or BasisCache(sizes.device, base_dtype=sizes.dtype)
        self._num_pages, self._page_size = _PAGES, PAGE_SIZE
        self.engine = Engine(self.injection, self._num_pages, self._page_size, on_device=True)
        self._banks: dict[Any, Bank] = {}

    @property
    def attention(self) -> str:
        """Return which way attention goes."""
        cache = self.engine._cache
        assert isinstance(cache, DeviceCache)
        if cache._reads_pages:
            return "torch's paged kernel"
        return "own paged kernel" if any(cache._has_kernel.values()) else "gathered keys"

    @property
    def num_recordings(self) -> int:
        """Return how many steps are replayed."""
        graphs = self.engine._graphs
        return graphs.num_recordings if graphs else 0

    @property
    def ways(self) -> dict[str, Any]:
        """Return which ways were taken that depend on the device and on the check at the start."""
        return {"own attention": self.engine.has_own_attention, "attention": self.attention}

    def step_eagerly(self, batch: Batch) -> None:
        """Run a step of single tokens without static tensors and recordings."""
        with patch.object(self.engine, "_graphs", None):
            self.engine.step(batch)

    def difference_of_recordings(self, batch: Batch) -> float:
        """Return the most by which a replayed step's logits differ from a computed one's."""
        replayed = self.engine.logits(batch).clone()
        with patch.object(self.engine, "_graphs", None):
            return float((self.engine.logits(batch) - replayed).abs().max())

    def shapes(self, which: str) -> dict[str, Shape]:
        """Return path -> shape of `qv` or of all `seven` linears of every layer."""
        return {target: self.spec.targets[target] for target in targets_of(self.spec, which)}

    def method(self, name: str) -> Method:
        """Return the method with the sizes that are measured."""
        methods: dict[str, Method] = {
            "fourierft": FourierFT(self.sizes.n, 300.0),
            "loca": LoCA(self.sizes.n),
            "waveletft": WaveletFT(self.sizes.n),
            "lora": LoRA(self.sizes.rank, float(self.sizes.rank)),
        }
        return methods[name]

    def factored(self, name: str, which: str, count: int) -> list[Entry | None]:
        """Return leases of `count` adapters of one bank; each slot has the same coefficients."""
        shapes = self.shapes(which)
        methods = self.method(name).of_layers(shapes)
        bank = Bank(Layout.of(methods, shapes), self.bases, slots=count)
        row = bank.pack(*random_adapter(self.method(name), shapes, self.bases, 0))
        slots = [bank.add(row) for _ in range(count)]
        return [Entry((str(slot), "factored"), payload=Factored(bank, slot)) for slot in slots]

    def merged(self, which: str) -> Entry:
        """Return a lease of one merged adapter."""
        shapes = self.shapes(which)
        methods, layers = random_adapter(self.method("fourierft"), shapes, self.bases, 0)
        weights = materialise(methods, layers, self.injection.linears, self.bases)
        return Entry(("0", "merged"), payload=Merged(weights))

    def decode(self, leases: Sequence[Entry | None], with_prompts: bool = True) -> Batch:
        """Return a step of single tokens of sequences, each with its tokens before in the cache.

        Args:
            leases: of the sequences.
            with_prompts: whether these are computed; else the cache holds what it held.
        """
        pool, works = PagePool(self._num_pages, self._page_size), []
        for i, lease in enumerate(leases):
            work = self.prompt(lease, CONTEXT - 1, i, pool)
            if with_prompts:
                self.engine.step(Batch((), (work,)))
            work.sequence.tokens.append(1)
            works.append(Work.of(work.sequence, CONTEXT - 1, CONTEXT))
        return Batch(tuple(works), ())

    def prompt(
        self,
        lease: Entry | None,
        length: int = _PROMPT,
        number: int = 1,
        pool: PagePool | None = None,
    ) -> Work:
        """Return the work on a random prompt with pages of its own."""
        pool = pool or PagePool(self._num_pages, self._page_size)
        sampling = Sampling(max_tokens=1, temperature=0)
        prompt = prompt_of(number, length, self.sizes.vocabulary)
        sequence = TokenSequence(tuple(prompt), sampling, lease)
        sequence.pages = pool.allocate(pool.pages_for(sequence.max_length)) or []
        return Work.of(sequence, 0, length)

    def _sequence(self, number: int, lease: Entry | None) -> TokenSequence:
        sampling = Sampling(max_tokens=_NEW, temperature=0)
        return TokenSequence(tuple(prompt_of(number, _PROMPT)), sampling, lease)

    def write(self, name: str, which: str, folder: Path) -> Path:
        """Write an adapter of these layers and return its folder."""
        made = random_adapter(self.method(name), self.shapes(which), self.bases, 3)
        write_adapter(folder, *made, self.spec)
        return folder

    def load_merged(self, folder: Path) -> None:
        """Bring an adapter from its file to merged weights."""
        adapter = self._read(folder)
        materialise(adapter.methods, adapter.layers, self.injection.linears, self.bases)
        self.wait()

    def load_factored(self, folder: Path) -> Entry:
        """Bring an adapter from its file into a bank."""
        adapter = self._read(folder)
        layout = Layout.of(adapter.methods, self.spec.targets)
        if layout.key not in self._banks:
            self._banks[layout.key] = Bank(layout, self.bases, slots=64)
        bank = self._banks[layout.key]
        slot = bank.add(bank.pack(adapter.methods, adapter.layers))
        return Entry((str(slot), "factored"), payload=Factored(bank, slot))

    def forget(self, lease: Entry) -> None:
        """Give the slot of a factored adapter back."""
        assert isinstance(lease.payload, Factored)
        lease.payload.bank.remove(lease.payload.slot)

    def _read(self, folder: Path) -> Any:
        config = (folder / CONFIG_NAME).read_bytes()
        return read_adapter(folder / WEIGHTS_NAME, config, self.spec)

    def copy_weights(self, which: str) -> None:
        """Read and write the weights that a merge reads and writes."""
        for target in targets_of(self.spec, which):
            self.injection.linears[target].golden().clone()
        self.wait()

    def first_token(self, lease: Entry) -> None:
        """Compute a prompt and choose its first token."""
        self.engine.step(Batch((), (self.prompt(lease),)))

    def fill(self, size_bytes: int) -> tuple[int, int, bool]:
        """Fill a bank of so many bytes; return its adapters, bytes of each, and are they right.

        The last adapters of a full bank must answer as they do in a small one.
        """
        shapes = self.shapes("qv")
        layout = Layout.of(self.method("fourierft").of_layers(shapes), shapes)
        small = Bank(layout, self.bases, slots=4)
        count = size_bytes // small.row_bytes - 1
        bank = Bank(layout, self.bases, slots=count)
        nothing = torch.zeros(layout.width, device=self.sizes.device)
        slots = [bank.add(nothing) for _ in range(count - 3)]
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            row = torch.randn(layout.width, generator=generator).to(self.sizes.device)
            slots.append(bank.add(row))
            small.add(row)
        target = next(iter(shapes))
        x = torch.randn(3, shapes[target].in_, device=self.sizes.device)
        got, true = (
            one.apply(target, x, Rows(torch.tensor(own, device=x.device), 3))
            for one, own in ((bank, slots[-3:]), (small, [1, 2, 3]))
        )
        assert got is not None
        assert true is not None
        return count, bank.row_bytes, bool(torch.allclose(got, true))

    def against_generate(self, rows: int, rounds: int) -> tuple[int, dict[str, float]]:
        """Return new tokens a row, and seconds for `rows` prompts here and by `generate`."""
        ids = torch.tensor([prompt_of(i, _PROMPT) for i in range(rows)], device=self.sizes.device)
        reference: Any = random_llama(self.sizes)

        def generate() -> Tensor:
            with torch.inference_mode():
                out: Tensor = reference.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=_NEW,
                    min_new_tokens=_NEW,
                    do_sample=False,
                )
            self.wait()
            return out

        return _NEW, interleaved({"ours": lambda: self._run(rows), "generate": generate}, rounds)

    def _run(self, rows: int) -> None:
        scheduler = Scheduler(PagePool(self._num_pages, self._page_size), 2048, rows)
        for i in range(rows):
            scheduler.add(self._sequence(i, None))
        while batch := scheduler.next(0.0):
            scheduler.advance(batch, [token for token in self.engine.step(batch) if token])

    def wait(self) -> None:
        """Wait until the device has done what it was told."""
        wait_for(self.sizes.device)

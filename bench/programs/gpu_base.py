"""The base that gpu.py measures, its adapters, and what is done with them once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from adapters_core.base.spec import spec_of
from adapters_core.contract.method import Method
from adapters_core.contract.rows import Rows
from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME, write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from adapters_core.methods import FourierFT, LoRA
from bench.lib.bases import prompt_of, random_adapter, targets_of
from bench.lib.timing import interleaved
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


@dataclass(frozen=True)
class Sizes:
    """A base's shape, where it stands, and how large the bank of `GpuBase.fill` is."""

    device: torch.device
    dtype: torch.dtype
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    bank_bytes: int
    n: int
    rank: int


def of_llama_8b() -> Sizes:
    """Return Llama-3.1-8B's shape, on the GPU."""
    device = torch.device("cuda")
    return Sizes(
        device, torch.bfloat16, 4096, 14336, 32, 32, 8, 128256, 16_000_000_000, n=1000, rank=16
    )


def of_nothing_much() -> Sizes:
    """Return a small shape, on the CPU."""
    device = torch.device("cpu")
    return Sizes(device, torch.float32, 64, 96, 2, 4, 2, 8192, 100_000, n=20, rank=2)


def random_llama(sizes: Sizes) -> nn.Module:
    """Return a base with random weights, made where it stands."""
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    config.eos_token_id = config.bos_token_id = None
    config.pad_token_id = 0
    torch.manual_seed(0)
    with sizes.device:
        made: nn.Module = AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", dtype=sizes.dtype
        )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
    return made.eval().requires_grad_(False)


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
        self.bases = bases or BasisCache(sizes.device)
        self._num_pages, self._page_size = _PAGES, PAGE_SIZE
        self.engine = Engine(self.injection, self._num_pages, self._page_size, on_device=True)
        self._banks: dict[Any, Bank] = {}

    @property
    def attention(self) -> str:
        """Return which way attention goes."""
        cache = self.engine._cache
        assert isinstance(cache, DeviceCache)
        return "paged kernel" if cache._reads_pages else "gathered keys"

    @property
    def num_recordings(self) -> int:
        """Return how many steps are replayed."""
        graphs = self.engine._graphs
        return graphs.num_recordings if graphs else 0

    def method(self, name: str) -> Method:
        """Return the method with the sizes that are measured."""
        if name == "fourierft":
            return FourierFT(self.sizes.n, 300.0)
        return LoRA(self.sizes.rank, float(self.sizes.rank))

    def factored(self, name: str, which: str, count: int) -> list[Entry | None]:
        """Return leases of `count` adapters of one bank; their coefficients are noise."""
        shapes = {target: self.spec.targets[target] for target in targets_of(self.spec, which)}
        methods = self.method(name).of_layers(shapes)
        bank = Bank(Layout.of(methods, shapes), self.bases, slots=count)
        size = 1e-3 if name == "lora" else 1e-6
        leases: list[Entry | None] = []
        for i in range(count):
            row = size * torch.randn(bank.layout.width, device=self.sizes.device)
            leases.append(Entry((str(i), "factored"), payload=Factored(bank, bank.add(row))))
        return leases

    def merged(self, which: str) -> Entry:
        """Return a lease of one merged adapter."""
        shapes = {target: self.spec.targets[target] for target in targets_of(self.spec, which)}
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

    def write(self, which: str, folder: Path) -> Path:
        """Write a FourierFT adapter of these layers and return its folder."""
        shapes = {target: self.spec.targets[target] for target in targets_of(self.spec, which)}
        made = random_adapter(self.method("fourierft"), shapes, self.bases, 3)
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
        bank = self._banks.setdefault(layout.key, Bank(layout, self.bases, slots=64))
        slot = bank.add(bank.pack(adapter.methods, adapter.layers))
        return Entry((str(slot), "factored"), payload=Factored(bank, slot))

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
        shapes = {target: self.spec.targets[target] for target in targets_of(self.spec, "qv")}
        layout = Layout.of(self.method("fourierft").of_layers(shapes), shapes)
        count = size_bytes // (4 * layout.width) - 1
        bank, small = Bank(layout, self.bases, slots=count), Bank(layout, self.bases, slots=4)
        slots = [bank.add(torch.zeros((), device=self.sizes.device)) for _ in range(count - 3)]
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
        if self.sizes.device.type == "cuda":
            torch.cuda.synchronize()

"""The same bits whoever else is in the batch, in float32 on a CPU.

A property of kernels that nobody promises: rows in multiples of four, keys in pages of 32 and
single tokens over their exact length keep it (adapters_core/contract/rows.py,
server/engine/attention.py). Here it is held true for every method and for merged weights, at one
and two threads.
"""

from collections.abc import Callable
from itertools import cycle, islice

import pytest
import torch
from torch import Tensor, nn

import tiny
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import registered
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
from server.adapters.residency import Entry
from server.scheduling.sequence import TokenSequence
from server_parts import (
    FOURIERFT,
    LORA,
    QUERY_VALUE,
    Served,
    given,
    greedy,
    prompt_of,
    scattered_pool,
    torch_threads,
)

#: Widths 96 and 128; keys 32 wide are among those that a Fourier transform takes in groups.
BASES: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: tiny.model("llama"),
    "llama-128": lambda: tiny.model(
        "llama", hidden_size=128, num_attention_heads=4, num_key_value_heads=1
    ),
    "qwen3": lambda: tiny.model("qwen3"),
    "gpt2": lambda: tiny.model("gpt2"),
    "gemma2": lambda: tiny.model("gemma2"),
    # One expert: how many rows an expert gets follows from the neighbours.
    "gpt_oss": lambda: tiny.model("gpt_oss", num_local_experts=1, num_experts_per_tok=1),
}
METHODS: tuple[Method, ...] = (
    FOURIERFT,
    LORA,
    FourierFT(n=300, seed=3),
    LoRA(r=8, alpha=4.0),
    C3A(block_size=16),
    CLoRA(r=3, num_spaces=2),
    DoRA(r=3),
    FRoD(sparse_rate=0.02),
    LoCA(n=300),
    SHiRA(r=2),
    TinyLoRA(r=5, u=6, tying=0.5),
    VeRA(r=5),
    WaveletFT(n=60),
    WaveletFT(n=300, num_levels=2),
)
NEW_TOKENS = 5
CHUNKS = (16, 24, 37)
#: Every method alone on query and value and on all layers, two merged adapters, two bare bases.
NUM_PROMPTS = 2 * len(METHODS) + 4
MORE = (2, 5, 40, 64, 96, 21, 8, 50)
SHORT = tuple(islice(cycle((3, 17, 31, 32, 33, 64, 95, 130, 200, 310, 1, 45, *MORE)), NUM_PROMPTS))
LONG = (3, 250, 31, 700, 33, 511, 512, 513, 900, 1000, 1, 45)
LONG = (*LONG, *islice(cycle(MORE), NUM_PROMPTS - len(LONG)))


class Crowd:
    """Prompts on one base: every method on some layers or all, merged ones, and the base."""

    def __init__(self, base: str, lengths: tuple[int, ...]) -> None:
        self.served = Served(BASES[base](), num_pages=2 * sum(lengths) // 32 + 80)
        self.leases: list[Entry | None] = []
        for seed, method in enumerate(METHODS):
            for ends in (QUERY_VALUE, ("",)):
                adapter = given(self.served.spec, method, seed, ends, self.served.bases)
                self.leases.append(self.served.entry(adapter, "factored"))
        for seed, method in enumerate(METHODS[:2]):
            adapter = given(self.served.spec, method, seed + 10, ("",), self.served.bases)
            self.leases.insert(5 * seed + 2, self.served.entry(adapter, "merged"))
        self.leases += [None, None]
        self.prompts = [prompt_of(length, length) for length in lengths]

    def sequences(self) -> list[TokenSequence]:
        pairs = zip(self.prompts, self.leases, strict=True)
        return [TokenSequence(prompt, greedy(NEW_TOKENS), lease) for prompt, lease in pairs]

    def alone(self) -> list[Tensor]:
        """Return every sequence's logits when nobody else runs and its prompt is one piece."""
        return [
            self.served.run([one], max_rows=max(16, len(one.prompt)))[one]
            for one in self.sequences()
        ]

    def together(self, max_rows: int, scattered: bool = False) -> list[Tensor]:
        pool = scattered_pool(self.served.num_pages // 2) if scattered else None
        sequences = self.sequences()
        logits = self.served.run(sequences, max_rows, pool=pool)
        return [logits[one] for one in sequences]


def different(some: list[Tensor], others: list[Tensor]) -> list[int]:
    """Return which sequences' logits do not have the same bits."""
    pairs = enumerate(zip(some, others, strict=True))
    return [i for i, (one, other) in pairs if not torch.equal(one, other)]


def check(base: str, lengths: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    crowd = Crowd(base, lengths)
    alone = crowd.alone()
    assert all(torch.isfinite(logits).all() for logits in alone)
    for max_rows in chunks:
        assert different(alone, crowd.together(max_rows)) == [], f"max_rows = {max_rows}"
    assert different(alone, crowd.together(chunks[-1], scattered=True)) == [], "scattered pages"


def test_every_registered_method_is_here() -> None:
    assert {method.name for method in METHODS} == set(registered())


@pytest.mark.parametrize("base", BASES)
def test_a_row_has_the_same_bits_alone_in_a_crowd_and_in_pieces(base: str) -> None:
    with torch_threads(1):
        check(base, SHORT, (sum(SHORT), *CHUNKS))


@pytest.mark.parametrize("base", ["llama", "llama-128"])
def test_two_threads_too(base: str) -> None:
    with torch_threads(2):
        check(base, SHORT, (CHUNKS[-1],))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.timeout(600)  # on cores that others use, too
def test_long_prompts_too(base: str, threads: int) -> None:
    with torch_threads(threads):
        check(base, LONG, (*CHUNKS, 64, 130, 512, sum(LONG)))

"""The device's attention, run on the CPU, against the CPU's own over the same pages."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adapters_core.gpu_kernels.running import Launch, interpreted, listening
from server.engine.attention import PagedCache
from server.engine.attention_device import DeviceCache
from server.engine.mask_patterns import MaskPattern
from server.engine.scoring import Scoring
from server.engine.step_tensors import pack
from server.engine.torch_paging import has_paging
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work
from server_parts import CPU, PAGE_SIZE, scattered_pool, torch_threads

NUM_PAGES, HEAD_DIM = 40, 8
TOLERANCE = 1e-5
PLAIN = Scoring()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


class Both:
    """Two caches that are told the same, one of each way."""

    def __init__(self, scattered: bool = False, seed: int = 0) -> None:
        self.caches: tuple[PagedCache, DeviceCache] = (
            PagedCache(NUM_PAGES, PAGE_SIZE),
            DeviceCache(NUM_PAGES, PAGE_SIZE),
        )
        self.pool = scattered_pool(NUM_PAGES // 2) if scattered else PagePool(NUM_PAGES, PAGE_SIZE)
        self.generator = torch.Generator().manual_seed(seed)

    def sequence(self, length: int) -> TokenSequence:
        made = TokenSequence((0,) * length, Sampling(max_tokens=1))
        made.pages = self.pool.allocate(self.pool.pages_for(length)) or []
        assert made.pages
        return made

    def step(
        self,
        singles: list[tuple[TokenSequence, int]],
        pieces: list[tuple[TokenSequence, int, int]],
        heads: tuple[int, int] = (6, 2),
        scoring: Scoring = PLAIN,
        fill: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend over random rows, or rows of `fill`; return the real rows of both caches."""
        decode = tuple(Work.of(sequence, i, i + 1) for sequence, i in singles)
        batch = Batch(decode, tuple(Work.of(*piece) for piece in pieces))
        step = pack(batch, PAGE_SIZE, CPU)
        rows = step.ids.shape[1]
        q, k, v = (
            torch.randn(1, count, rows, HEAD_DIM, generator=self.generator)
            for count in (heads[0], heads[1], heads[1])
        )
        if fill is not None:
            k[:], v[:] = fill, fill
        out = []
        for cache in self.caches:
            cache.begin(step.layout)
            out.append(cache.attend(0, q, k, v, scoring)[0, : batch.num_rows])
        return out[0], out[1]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 110), min_size=1, max_size=5),
    cut=st.integers(1, 109),
    heads=st.sampled_from([(1, 1), (6, 2), (4, 4), (5, 1)]),
    scoring=st.builds(
        Scoring,
        scale=st.sampled_from([None, 0.2]),
        pattern=st.sampled_from(
            [
                MaskPattern(),
                *(MaskPattern(window=n) for n in (1, 7, 32, 40, 500)),
                *(MaskPattern(chunk=n) for n in (13, 64)),
            ]
        ),
        softcap=st.sampled_from([None, 0.5]),
        sinks=st.sampled_from([None, torch.linspace(-2, 4, 6)]),
    ),
    scattered=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_both_ways_agree_on_any_pages_pieces_and_windows(
    lengths: list[int],
    cut: int,
    heads: tuple[int, int],
    scoring: Scoring,
    scattered: bool,
    seed: int,
) -> None:
    """Prompts in two pieces, then single tokens of some beside the second pieces of others."""
    both = Both(scattered, seed)
    if scoring.sinks is not None:
        scoring = replace(scoring, sinks=scoring.sinks[: heads[0]])
    sequences = [both.sequence(n) for n in lengths]
    first = [(one, 0, min(cut, len(one.prompt) - 1)) for one in sequences]
    rest = [(one, stop, len(one.prompt)) for one, _, stop in first]
    singles = [(one, start) for one, start, stop in rest if stop == start + 1]
    pieces = [piece for piece in rest if piece[2] > piece[1] + 1]
    for told in (([], first), (singles, pieces)):
        on_cpu, on_device = both.step(*told, heads, scoring)
        assert (on_cpu - on_device).abs().max() < TOLERANCE


def test_what_an_earlier_sequence_left_in_a_page_is_never_read() -> None:
    both = Both()
    dirty = both.sequence(NUM_PAGES * PAGE_SIZE)
    both.step([], [(dirty, 0, len(dirty.prompt))], fill=torch.nan)
    both.pool.release(dirty.pages)
    clean = [both.sequence(70), both.sequence(3)]
    both.step([], [(one, 0, len(one.prompt) - 2) for one in clean])
    for _ in range(2):  # of different lengths: the short one looks at pages that it does not have
        on_cpu, on_device = both.step([(one, len(one.prompt) - 2) for one in clean], [])
        assert torch.isfinite(on_device).all()
        assert (on_cpu - on_device).abs().max() < TOLERANCE


def test_two_sequences_may_read_the_same_page() -> None:
    both = Both()
    one, other = both.sequence(50), both.sequence(50)
    both.step([], [(one, 0, 40)])
    other.pages = [one.pages[0], other.pages[1]]
    both.step([], [(other, 32, 40)])
    on_cpu, on_device = both.step([(one, 40), (other, 40)], [])
    assert (on_cpu - on_device).abs().max() < TOLERANCE


def test_the_page_of_zeros_is_never_written() -> None:
    both = Both()
    one = both.sequence(45)
    both.step([], [(one, 0, 45)])
    cache = both.caches[1]
    assert isinstance(cache, DeviceCache)
    assert not cache._keys[0][cache.zero_page * PAGE_SIZE :].any()
    assert cache._keys[0].shape[0] == (cache.zero_page + 1) * PAGE_SIZE


def test_a_cpu_never_takes_the_paged_kernel() -> None:
    """Its kernel is for CUDA; the pinned torch has the arguments that are looked for."""
    both = Both()
    both.step([], [(both.sequence(5), 0, 5)])
    cache = both.caches[1]
    assert isinstance(cache, DeviceCache)
    assert cache._reads_pages is False
    assert has_paging() or tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13)


def wrong_scale(cache: DeviceCache, rows: Tensor, *others: Any) -> Tensor:
    return 1.1 * cache._gathered(rows, *others)


def not_this_device(cache: DeviceCache, rows: Tensor, *others: Any) -> Tensor:
    raise RuntimeError("block_table needs FA3")


def reads_a_cell_too_many(cache: DeviceCache, rows: Tensor, k: Tensor, *others: Any) -> Tensor:
    return cache._gathered(rows, k, *others) + 0 * k.sum()


@pytest.mark.parametrize(
    ("kernel", "taken"),
    [
        (DeviceCache._gathered, True),
        (wrong_scale, False),
        (not_this_device, False),
        (reads_a_cell_too_many, False),
    ],
)
def test_a_paged_kernel_is_taken_only_if_it_is_right(
    kernel: Any, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceCache, "_paged", kernel)
    cache = DeviceCache(NUM_PAGES, PAGE_SIZE)
    rows, keys = torch.zeros(4, 6, HEAD_DIM), torch.zeros(64, 2, HEAD_DIM)
    assert cache._agrees(cache._paged, rows, keys, keys, PLAIN) is taken


SCORINGS = [
    Scoring(scale=0.2, pattern=MaskPattern(window=40), softcap=0.5),
    Scoring(pattern=MaskPattern(chunk=13), sinks=torch.linspace(-2, 4, 6)),
]


def attends_like_a_cpu(both: Both, scoring: Scoring) -> Counter[str]:
    """Attend over prompts, then single tokens; return how often each kernel was launched then."""
    heard: list[Launch] = []
    sequences = [both.sequence(n) for n in (33, 5)]
    both.step([], [(one, 0, len(one.prompt) - 2) for one in sequences], scoring=scoring)
    with listening(heard.append):
        for behind in (2, 1):  # the second time with a prompt's piece beside them
            singles = [(one, len(one.prompt) - behind) for one in sequences]
            pieces = [] if behind == 2 else [(both.sequence(5), 0, 5)]
            on_cpu, on_device = both.step(singles, pieces, scoring=scoring)
            assert (on_cpu - on_device).abs().max() < TOLERANCE
    return Counter(one.kernel.fn.__name__ for one in heard)


@pytest.mark.parametrize("scoring", SCORINGS, ids=["window, cap", "chunk, sinks"])
def test_single_tokens_go_through_our_kernel_where_it_runs(scoring: Scoring) -> None:
    pytest.importorskip("triton")
    both = Both()
    with interpreted():
        names = attends_like_a_cpu(both, scoring)
    assert names == {"attend": 2, "store": 2}
    assert list(both.caches[1]._has_kernel.values()) == [True]


@pytest.mark.parametrize("wrong", ["scale", "cells", "device"])
def test_our_kernel_is_taken_only_if_it_is_right(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    way = {"scale": wrong_scale, "cells": reads_a_cell_too_many, "device": not_this_device}[wrong]
    monkeypatch.setattr(DeviceCache, "_by_kernel", way)
    both = Both()
    with interpreted():
        attends_like_a_cpu(both, PLAIN)
    assert list(both.caches[1]._has_kernel.values()) == [False]

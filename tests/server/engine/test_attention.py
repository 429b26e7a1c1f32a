"""Paged attention against torch's own over contiguous keys."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from server.engine.attention import PagedCache, Run, Span, StepLayout, _attention
from server.engine.mask_patterns import REFUSED, MaskPattern, UnsupportedAttention
from server.engine.scoring import Scoring
from server.engine.step_tensors import pack
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work
from server_parts import CPU, torch_threads

PAGE_SIZE = 32
NUM_PAGES = 40
HEAD_DIM = 8
TOLERANCE = 64 * torch.finfo(torch.float32).eps
PLAIN = Scoring()
#: Soft caps and sinks are drawn; `None` is a layer without them.
PATTERNS = [
    MaskPattern(),
    *(MaskPattern(window=n) for n in (1, 7, 32, 40, 500)),
    MaskPattern(chunk=13),
    MaskPattern(chunk=64),
]
SINKS = (None, torch.tensor([0.3, -2.0, 4.0, 1.0, 0.0, 2.5]))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@dataclass
class Attended:
    """A sequence with the queries, keys and values of all its tokens."""

    length: int
    heads: int
    kv_heads: int
    seed: int
    sequence: TokenSequence = field(init=False)

    def __post_init__(self) -> None:
        self.sequence = TokenSequence((0,) * self.length, Sampling(max_tokens=1))
        generator = torch.Generator().manual_seed(self.seed)
        self.q = torch.randn(self.heads, self.length, HEAD_DIM, generator=generator)
        self.k = torch.randn(self.kv_heads, self.length, HEAD_DIM, generator=generator)
        self.v = torch.randn(self.kv_heads, self.length, HEAD_DIM, generator=generator)

    def expected(self, scoring: Scoring = PLAIN) -> Tensor:
        """Return `[length, heads, d]` by the definition, float64, over all tokens at once."""
        own, other = torch.arange(self.length)[:, None], torch.arange(self.length)[None]
        mask, pattern = other <= own, scoring.pattern
        if pattern.window:
            mask &= own - other < pattern.window
        if pattern.chunk:
            mask &= own // pattern.chunk == other // pattern.chunk
        k, v = (
            t.double().repeat_interleave(self.heads // self.kv_heads, 0) for t in (self.k, self.v)
        )
        scores = self.q.double() @ k.transpose(1, 2) * (scoring.scale or HEAD_DIM**-0.5)
        if scoring.softcap:
            scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
        parts = scores.exp() * mask
        total = parts.sum(-1, keepdim=True)
        if scoring.sinks is not None:
            total = total + scoring.sinks.double().exp()[:, None, None]
        return (parts / total @ v).transpose(0, 1).float()


def attend(
    cache: PagedCache, works: list[tuple[Attended, int, int, bool]], scoring: Scoring = PLAIN
) -> list[Tensor]:
    """Run one step over `(sequence, start, stop, is single token)`; return each one's rows."""
    decode = tuple(Work(a.sequence, i, j, False) for a, i, j, single in works if single)
    prefill = tuple(Work(a.sequence, i, j, False) for a, i, j, single in works if not single)
    ordered = [w for w in works if w[3]] + [w for w in works if not w[3]]
    step = pack(Batch(decode, prefill), PAGE_SIZE, CPU)
    cache.layout = step.layout
    padding = step.ids.shape[1] - sum(j - i for _, i, j, _ in ordered)

    def rows(name: str) -> Tensor:
        pieces = [getattr(a, name)[:, i:j] for a, i, j, _ in ordered]
        noise = torch.full((pieces[0].shape[0], padding, HEAD_DIM), torch.nan)
        return torch.cat([*pieces, noise], dim=1).unsqueeze(0)

    out = cache.attend(0, rows("q"), rows("k"), rows("v"), scoring)[0]
    results, first = {}, 0
    for a, i, j, _ in ordered:
        results[id(a)] = out[first : first + j - i]
        first += j - i
    return [results[id(a)] for a, *_ in works]


def pages_of(length: int, scattered: bool, seed: int) -> list[int]:
    """Return ascending pages for `length` tokens: neighbours, or any."""
    count = -(-length // PAGE_SIZE)
    generator = torch.Generator().manual_seed(seed)
    if scattered:
        return sorted((torch.randperm(NUM_PAGES, generator=generator)[:count] + 1).tolist())
    start = int(torch.randint(1, NUM_PAGES - count + 1, (), generator=generator))
    return list(range(start, start + count))


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 150),
    cuts=st.lists(st.integers(1, 149), max_size=4),
    single_from=st.integers(0, 150),
    heads=st.sampled_from([(1, 1), (6, 2), (4, 4), (5, 1)]),
    scoring=st.builds(
        Scoring,
        scale=st.sampled_from([None, 0.2]),
        pattern=st.sampled_from(PATTERNS),
        softcap=st.sampled_from([None, 0.5]),
        sinks=st.sampled_from(SINKS),
    ),
    scattered_by=st.tuples(st.booleans(), st.integers(0, 1000)),
)
def test_any_pages_and_any_pieces_equal_contiguous_attention(
    length: int,
    cuts: list[int],
    single_from: int,
    heads: tuple[int, int],
    scoring: Scoring,
    scattered_by: tuple[bool, int],
) -> None:
    """Prompt pieces up to `single_from`, single tokens from there on (at most twelve)."""
    scattered, seed = scattered_by
    one = Attended(length, *heads, seed)
    one.sequence.pages = pages_of(length, scattered, seed)
    if scoring.sinks is not None:
        scoring = replace(scoring, sinks=scoring.sinks[: heads[0]])
    start_single = max(single_from, length - 12, 1)
    borders = sorted({0, min(length, start_single), *(c for c in cuts if c < start_single)})
    cache = PagedCache(NUM_PAGES, PAGE_SIZE)
    got = [
        attend(cache, [(one, i, j, False)], scoring)[0]
        for i, j in zip(borders, borders[1:], strict=False)
        if j <= length
    ]
    for i in range(borders[-1], length):
        got += attend(cache, [(one, i, i + 1, True)], scoring)
    assert (torch.cat(got) - one.expected(scoring)).abs().max() < TOLERANCE


def test_many_sequences_of_a_step_keep_to_themselves() -> None:
    pool = PagePool(NUM_PAGES, PAGE_SIZE)
    lengths = [1, 5, 31, 32, 33, 64, 90]
    many = [Attended(n, 6, 2, n) for n in lengths]
    for one in many:
        one.sequence.pages = pool.allocate(pool.pages_for(one.length)) or []
    cache = PagedCache(NUM_PAGES, PAGE_SIZE)
    for one in many[1:4]:
        attend(cache, [(one, 0, one.length - 1, False)])
    works = [(one, one.length - 1, one.length, True) for one in many[1:4]]
    works += [(one, 0, one.length, False) for one in [many[0], *many[4:]]]
    for (one, start, stop, _), got in zip(works, attend(cache, works), strict=True):
        assert (got - one.expected()[start:stop]).abs().max() < TOLERANCE


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("single", [False, True])
def test_what_an_earlier_sequence_left_in_a_page_is_never_read(
    scattered: bool, single: bool
) -> None:
    """Zero times NaN is NaN: masked keys must be finite, whatever stood in the page before."""
    cache = PagedCache(NUM_PAGES, PAGE_SIZE)
    clean = PagedCache(NUM_PAGES, PAGE_SIZE)
    for dirty in (Attended(NUM_PAGES * PAGE_SIZE, 6, 2, 1),):
        dirty.sequence.pages = list(range(1, NUM_PAGES + 1))
        for tensor in (dirty.q, dirty.k, dirty.v):
            tensor.fill_(torch.nan)
        attend(cache, [(dirty, 0, dirty.length, False)])
    one = Attended(70, 6, 2, 2)
    one.sequence.pages = pages_of(70, scattered, 7)
    last = (one, 45, 46, True) if single else (one, 45, 70, False)
    for work in ((one, 0, 45, False), last):
        got, wanted = attend(cache, [work])[0], attend(clean, [work])[0]
        assert torch.equal(got, wanted)
        assert (got - one.expected()[work[1] : work[2]]).abs().max() < TOLERANCE


def test_padding_rows_touch_page_zero_only() -> None:
    cache = PagedCache(4, PAGE_SIZE)
    one = Attended(5, 2, 2, 3)
    one.sequence.pages = [3]
    attend(cache, [(one, 0, 5, False)])  # three padding rows of NaN
    assert torch.isnan(cache._keys[0][:3]).all()
    assert not torch.isnan(cache._keys[0][PAGE_SIZE:]).any()
    assert torch.equal(cache._keys[0][3 * PAGE_SIZE : 3 * PAGE_SIZE + 5], one.k.transpose(0, 1))


def test_layers_have_their_own_cells() -> None:
    cache = PagedCache(4, PAGE_SIZE)
    cache.layout = StepLayout((), (), torch.tensor([32]), torch.tensor([], dtype=torch.long))
    ones = torch.ones(1, 1, 1, HEAD_DIM)
    cache.attend(0, ones, ones, ones, PLAIN)
    cache.attend(1, ones, 2 * ones, 2 * ones, PLAIN)
    assert [float(cache._keys[layer][32].mean()) for layer in (0, 1)] == [1.0, 2.0]


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_change_the_answer_are_refused(name: str) -> None:
    ones = torch.ones(1, 1, 1, HEAD_DIM)
    with pytest.raises(UnsupportedAttention, match=name):
        _attention(nn.Module(), ones, ones, ones, None, **{name: 30.0})


def test_arguments_that_change_nothing_are_taken() -> None:
    cache = PagedCache(2, PAGE_SIZE)
    cache.layout = StepLayout((), (), torch.tensor([0]), torch.tensor([], dtype=torch.long))
    ones = torch.ones(1, 1, 1, HEAD_DIM)
    module: Any = SimpleNamespace(overtone_cache=cache, overtone_pattern=MaskPattern(), layer_idx=0)
    out, weights = _attention(
        module, ones, ones, ones, None, scaling=0.5, dropout=0.0, is_causal=True, softcap=None
    )
    assert out.shape == (1, 1, 1, HEAD_DIM)
    assert weights is None


@pytest.mark.parametrize(
    ("pages", "contiguous"),
    [((4,), True), ((4, 5, 6), True), ((10, 3, 12), False), ((5, 4), False), ((1, 2, 4), False)],
)
def test_only_neighbours_in_order_are_read_as_a_slice(
    pages: tuple[int, ...], contiguous: bool
) -> None:
    """A kept prefix lies before or behind a sequence's own pages, so ends alone say nothing."""
    assert Span(0, 1, 0, pages).is_contiguous == contiguous


def first_pages(runs: tuple[Run, ...]) -> list[list[int]]:
    return [[span.pages[0] for span in run.spans] for run in runs]


def singles(*rows: tuple[int, tuple[int, ...]]) -> StepLayout:
    """Return a step of single tokens, each with its position and pages."""
    spans = tuple(Span(i, 1, *row) for i, row in enumerate(rows))
    nothing = torch.zeros(0, dtype=torch.long)
    return StepLayout(spans, (), nothing, nothing)


def test_a_run_has_equal_lengths_and_pages_that_are_equally_far_apart() -> None:
    found = singles(
        (40, (1, 2)),
        (40, (4, 5)),
        (40, (7, 8)),
        (41, (10, 11)),  # longer
        (41, (3, 6)),  # its pages are no neighbours
        (41, (20, 21)),
        (41, (20, 21)),  # a kept prefix of both
        (41, (18, 19)),  # backwards
        (41, (22, 23)),
        (41, (27, 28)),  # another distance than the one before
    )
    assert first_pages(found.runs) == [[1, 4, 7], [10], [3], [20], [20], [18, 22], [27]]
    assert [run.distance for run in found.runs] == [3, 0, 0, 0, 0, 4, 0]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (5, 1)], ids=str)
@pytest.mark.parametrize(
    "scoring",
    [
        *(Scoring(pattern=pattern) for pattern in PATTERNS),
        Scoring(softcap=0.5),
    ],
    ids=str,
)
def test_a_row_has_the_same_bits_in_a_run_and_alone(
    scoring: Scoring, heads: tuple[int, int], threads: int
) -> None:
    many = [Attended(70, *heads, seed) for seed in range(9)]
    for number, one in enumerate(many):
        one.sequence.pages = list(range(1 + 4 * number, 4 + 4 * number))
    cache = PagedCache(NUM_PAGES, PAGE_SIZE)
    attend(cache, [(one, 0, 69, False) for one in many], scoring)
    with torch_threads(threads):
        together = attend(cache, [(one, 69, 70, True) for one in many], scoring)
        assert cache.layout is not None
        assert len(cache.layout.runs) == 1
        for one, got in zip(many, together, strict=True):
            assert torch.equal(attend(cache, [(one, 69, 70, True)], scoring)[0], got)
            assert (got - one.expected(scoring)[69:]).abs().max() < TOLERANCE

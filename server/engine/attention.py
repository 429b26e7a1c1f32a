"""Attention over packed rows `[1, T]` and a paged cache, for any Hugging Face causal LM.

Registered through transformers' public `AttentionInterface`. Rows of running sequences come first,
one token each; prompt pieces follow. Counts are padded so that a row's bits do not depend on its
neighbours: query rows to a multiple of four, and keys so that their number follows from a row's
position alone: a prompt's rows read whole pages of 32 up to their own (masked), a single token
exactly the keys it has. A GEMM sums over 200 keys in other blocks than over 300, zeros or not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from adapters_core.contract.rows import pad_rows, padding_of
from server.engine.mask_patterns import MaskPattern, mask_patterns_of, refuse_arguments
from server.engine.scoring import Scoring

NAME = "overtone"


@dataclass(frozen=True)
class Span:
    """A sequence's rows `first..first + count` of the batch; their tokens start at `position`."""

    first: int
    count: int
    position: int
    pages: tuple[int, ...]

    @property
    def length(self) -> int:
        """Return how many tokens of the sequence the cache holds after this step."""
        return self.position + self.count

    @cached_property
    def is_contiguous(self) -> bool:
        """Return whether the pages are neighbours in order."""
        return all(after == page + 1 for page, after in pairwise(self.pages))


@dataclass(frozen=True)
class Run:
    """Neighbouring single tokens with as many keys each, whose pages lie equally far apart.

    Args:
        spans: of the rows.
        distance: pages from one row's first to the next one's.
    """

    spans: tuple[Span, ...]
    distance: int

    @classmethod
    def begun_with(cls, spans: tuple[Span, ...]) -> "Run":
        """Return the longest run that begins with the first of these spans."""
        first = spans[0]
        distance = spans[1].pages[0] - first.pages[0] if len(spans) > 1 else 0
        if distance <= 0 or not first.is_contiguous:
            return cls(spans[:1], 0)
        count = 1
        while count < len(spans) and cls._goes_on(first, spans[count], count * distance):
            count += 1
        return cls(spans[:count], distance)

    @staticmethod
    def _goes_on(first: Span, span: Span, distance: int) -> bool:
        is_like = span.position == first.position and span.is_contiguous
        return is_like and span.pages[0] == first.pages[0] + distance


@dataclass(frozen=True)
class StepLayout:
    """Where the rows of one step lie: single tokens first, then prompt pieces.

    Args:
        write: int64 `[T]`, the flat cache cell of every row.
        clear: int64, cells behind a prompt's end that masked keys will be read from.
        is_long: bool `[1, T]`, rows of texts beyond the border of rotations; None: no row is.
    """

    decode: tuple[Span, ...]
    prefill: tuple[Span, ...]
    write: Tensor
    clear: Tensor
    is_long: Tensor | None = None

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Return the single tokens in their order, as runs."""
        runs, left = [], self.decode
        while left:
            runs.append(Run.begun_with(left))
            left = left[len(runs[-1].spans) :]
        return tuple(runs)


class PagedCache:
    """Keys and values of all layers, each `[pages, page_size, kv_heads, head_dim]`."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self.layout: StepLayout | None = None
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def begin(self, layout: StepLayout) -> None:
        """Take the layout of the step that comes next."""
        self.layout = layout

    def is_long(self) -> Tensor | None:
        """Return the step's rows of texts beyond the border of rotations, bool `[1, T]`."""
        return None if self.layout is None else self.layout.is_long

    def attach(self, model: nn.Module) -> None:
        """Make every attention module of the model use this cache, each with its own pattern.

        Raises:
            UnsupportedAttention: the model's attention is not supported.
        """
        patterns = mask_patterns_of(model)
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
        model.set_attn_implementation(NAME)  # type: ignore[operator]
        for module in model.modules():
            if isinstance(layer := getattr(module, "layer_idx", None), int):
                module.overtone_cache = self  # type: ignore[assignment]
                module.overtone_pattern = patterns.get(layer)  # type: ignore[assignment]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        """Return `[1, T, heads, head_dim]` for q `[1, heads, T, d]`, k and v `[1, kv_heads, T, d]`.

        Keys and values of the step's rows are in the cache afterwards.
        """
        layout = self.layout
        assert layout is not None, "the engine sets the layout before the forward pass"
        keys, values = self._stored(layer, k, v)
        for cells, rows in ((keys, k), (values, v)):
            cells[layout.write] = rows[0].transpose(0, 1)
            cells[layout.clear] = 0
        out = q.new_zeros(q.shape[2], q.shape[1], v.shape[-1])
        if layout.decode:
            out[: len(layout.decode)] = self._singles(layout.runs, q, keys, values, scoring)
        for span in layout.prefill:
            own = slice(span.first, span.first + span.count)
            out[own] = self._piece(span, q, keys, values, scoring)
        return out.unsqueeze(0)

    def exchange(
        self, layer: int, rows: tuple[Tensor, Tensor], span: Span, past: int
    ) -> tuple[Tensor, Tensor]:
        """Store a span's rows of keys and values `[1, kv_heads, T, d]`; return the first `past`.

        What comes back are views where the pages are neighbours: `[1, kv_heads, past, d]`.
        """
        stored = self._stored(layer, *rows)
        size = self.page_size
        own = range(span.position, span.length)
        write = torch.tensor([span.pages[i // size] * size + i % size for i in own])
        for cells, new in zip(stored, rows, strict=True):
            kept = new[0, :, span.first : span.first + span.count]
            cells[write.to(cells.device)] = kept.transpose(0, 1)
        keys, values = (self._read(cells, span, 0, past) for cells in stored)
        return keys, values

    def _stored(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's flat cells `[pages * page_size, kv_heads, d]`, made at first use."""
        if layer not in self._keys:
            cells = self._num_cells()
            self._keys[layer] = k.new_zeros(cells, k.shape[1], k.shape[3])
            self._values[layer] = v.new_zeros(cells, v.shape[1], v.shape[3])
        return self._keys[layer], self._values[layer]

    def _num_cells(self) -> int:
        return (self.num_pages + 1) * self.page_size

    def _read(self, cells: Tensor, span: Span, start: int, stop: int) -> Tensor:
        """Return tokens `start..stop` of a sequence as `[1, kv_heads, stop - start, d]`."""
        if span.is_contiguous:  # a view, nothing is copied
            offset = span.pages[0] * self.page_size
            picked = cells[offset + start : offset + stop]
        else:
            pages = torch.tensor(span.pages, device=cells.device)
            paged = cells.view(-1, self.page_size, *cells.shape[1:])
            picked = paged[pages].flatten(0, 1)[start:stop]
        return picked.transpose(0, 1).unsqueeze(0)

    def _singles(
        self,
        runs: tuple[Run, ...],
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        scoring: Scoring,
    ) -> Tensor:
        """Return `[R, heads, d]` of the first R rows, each over exactly the keys it may see.

        A run is one call where torch has a kernel that computes each row of it by itself; batched
        products, the other way, choose by the number of rows.
        """
        rows, heads, kv_heads = sum(len(run.spans) for run in runs), q.shape[1], keys.shape[1]
        group = heads // kv_heads
        grouped = q[0, :, :rows].transpose(0, 1).reshape(rows, kv_heads, group, q.shape[3])
        if padding_of(group):
            grouped = F.pad(grouped, (0, 0, 0, padding_of(group)))
        if not (scoring.is_plain and q.shape[3] == values.shape[2]):
            runs = tuple(Run((span,), 0) for run in runs for span in run.spans)
        parts, done = [], 0
        for run in runs:
            start = scoring.pattern.first(run.spans[0].position)
            own = grouped[done : done + len(run.spans)]
            k, v = (self._read_run(cells, run, start) for cells in (keys, values))
            parts.append(scoring.weigh(own, k, v, None))
            done += len(run.spans)
        return torch.cat(parts)[:, :, :group].reshape(rows, heads, -1)

    def _read_run(self, cells: Tensor, run: Run, start: int) -> Tensor:
        """Return the keys of each row of a run from `start` on, `[R, kv_heads, K, d]`."""
        first = run.spans[0]
        if len(run.spans) == 1:
            return self._read(cells, first, start, first.length)
        heads, dim = cells.shape[1:]
        size = (len(run.spans), heads, first.length - start, dim)
        page = self.page_size * heads * dim
        offset = first.pages[0] * page + start * heads * dim
        return cells.as_strided(size, (run.distance * page, dim, heads * dim, 1), offset)

    def _piece(
        self,
        span: Span,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        scoring: Scoring,
    ) -> Tensor:
        """Return `[count, heads, d]` of a piece of a prompt over its sequence's keys."""
        groups = q.shape[1] // keys.shape[1]
        stop = self._page_end(span.length)
        k = self._read(keys, span, 0, stop).repeat_interleave(groups, dim=1)
        v = self._read(values, span, 0, stop).repeat_interleave(groups, dim=1)
        rows = q[0, :, span.first : span.first + span.count].transpose(0, 1)
        tiles = self._tiles(span) if q.device.type == "cpu" else [(span.position, span.length)]
        parts = []
        for start, end in tiles:
            seen = self._page_end(end)
            part = rows[start - span.position : end - span.position]
            parts.append(_masked(part, k[:, :, :seen], v[:, :, :seen], start, scoring))
        return torch.cat(parts)

    def _page_end(self, length: int) -> int:
        """Return `length` rounded up to whole pages."""
        return -(-length // self.page_size) * self.page_size

    def _tiles(self, span: Span) -> Iterator[tuple[int, int]]:
        """Yield the span's positions page by page, so that a row's keys follow from its own."""
        start = span.position
        while start < span.length:
            end = min(span.length, self._page_end(start + 1))
            yield start, end
            start = end


def _masked(rows: Tensor, k: Tensor, v: Tensor, position: int, scoring: Scoring) -> Tensor:
    """Return `[R, heads, d]` of rows `[R, heads, d]` from `position` on, over keys up to each."""
    count = rows.shape[0]
    queries = pad_rows(rows).transpose(0, 1).unsqueeze(0)  # [1, heads, padded, d]
    own = torch.arange(position, position + queries.shape[2], device=rows.device)
    own = own.clamp(max=position + count - 1)[:, None]  # padding rows see what the last one does
    other = torch.arange(k.shape[2], device=rows.device)[None]
    out = scoring.weigh(queries, k, v, scoring.pattern.mask(own, other))
    return out[0, :, :count].transpose(0, 1)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Compute attention with the signature of functions registered with transformers."""
    scaling, softcap, s_aux = (arguments.pop(n, None) for n in ("scaling", "softcap", "s_aux"))
    refuse_arguments(arguments)
    cache, pattern, layer = module.overtone_cache, module.overtone_pattern, module.layer_idx
    assert isinstance(cache, PagedCache)
    assert isinstance(pattern, MaskPattern)
    assert isinstance(layer, int)
    return cache.attend(layer, query, key, value, Scoring(scaling, pattern, softcap, s_aux)), None

"""Bases with attention code of their own: each sequence of a step runs through them alone.

ALiBi and other attention that accepts no registered function (BLOOM, MPT, Falcon, GPT-J) is
computed by transformers' modules. They are given a cache that holds one sequence: its earlier keys
are gathered from the pages, so scheduling, prefixes and adapters are those of every base. The
weights are read once a sequence instead of once a step.

A row's bits follow from its position alone here, too: a prompt runs page by page up to the page's
end, and a single token in as many rows as products run over. Unused rows follow the tokens; they
come later, so no token sees them. Where the base takes no longer text, earlier tokens come before
them instead.
"""

import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from adapters_core.contract.rows import padding_of, row_multiple
from adapters_core.layers.inject import Injection
from adapters_core.layers.uploads import sent
from server.engine.attention import PagedCache, Span
from server.engine.mask_patterns import UnsupportedAttention
from server.engine.step_tensors import pack
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

_PADDING_PAGE = 0


class _NoState(list[Any]):
    """Stands for a cache's other state of each layer, beside keys and values: none is kept."""

    def __getitem__(self, layer: Any) -> Any:
        raise UnsupportedAttention(
            f"layer {layer} keeps a state beside keys and values of its tokens (linear attention, "
            "a state space, a convolution, an index), which is not served"
        )


class SequenceCache(Cache):
    """A cache of one sequence, for one forward pass of transformers' modules.

    Args:
        cells: keys and values of all sequences.
        span: the pass's tokens that are kept; `first` counts rows of the pass.
        past: how many tokens lie before the pass's first row.
    """

    def __init__(self, cells: PagedCache, span: Span, past: int) -> None:
        super().__init__(layers=[])
        self.layers = _NoState()
        self._cells = cells
        self._span = span
        self._past = past

    def __len__(self) -> int:
        """Return that there are layers; transformers ignores a cache without layers."""
        return 1

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **others: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep the pass's tokens; return keys and values `[1, kv_heads, past + rows, d]`."""
        rows = (key_states, value_states)
        past = self._cells.exchange(layer_idx, rows, self._span, self._past)
        keys, values = (torch.cat([old, new], dim=2) for old, new in zip(past, rows, strict=True))
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens lie before the pass."""
        return self._past

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Return how many keys `update` returns, and the position of the first: 0."""
        return self._past + query_length, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return no limit: the cache grows."""
        return -1


@dataclass(frozen=True)
class _Pass:
    """One forward pass: rows `first..stop` of a sequence, of which `start..end` are its tokens."""

    work: Work
    first: int
    start: int
    end: int
    stop: int

    @property
    def samples(self) -> bool:
        return self.work.samples and self.end == self.work.stop

    @property
    def wanted(self) -> list[int]:
        """Return the positions whose logits are wanted: the last if sampled, then scored ones."""
        last = [self.end - 1] if self.samples else []
        return last + [i for i in self.work.scored if self.start <= i < self.end]


class OwnAttention:
    """Runs a step's works one after another through a base with attention of its own.

    Args:
        injection: the base with its linears injected.
        num_pages, page_size: of the cache.
        kept: paths of linears that see the sampled rows only.
        keeps_rows: whether the base takes the rows of wanted logits as an argument.
    """

    def __init__(
        self,
        injection: Injection,
        num_pages: int,
        page_size: int,
        kept: Collection[str],
        keeps_rows: bool,
    ) -> None:
        self._injection = injection
        self._cells = PagedCache(num_pages, page_size)
        self._page_size = page_size
        self._kept = kept
        self._keeps_rows = keeps_rows
        self._device = next(injection.model.parameters()).device
        self._limit = _limit(injection.model)
        arguments = inspect.signature(injection.model.forward).parameters
        self._takes_positions = "position_ids" in arguments

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits `[B, vocabulary]` of the works that sample, and of the scored rows.

        Both in the order of the works.
        """
        sampled, scored = [], []
        for number, work in enumerate(batch.works):
            for one in self._passes(work, is_single=number < len(batch.decode)):
                rows = self._run(one)
                sampled.append(rows[: one.samples])
                scored.append(rows[one.samples :])
        return torch.cat(sampled), torch.cat(scored)

    def _passes(self, work: Work, is_single: bool) -> Iterator[_Pass]:
        """Yield the passes of a work: one for a single token, one a page for a prompt's piece."""
        start = work.start
        while start < work.stop:
            page_end = (start // self._page_size + 1) * self._page_size
            end = min(work.stop, page_end)
            first, stop = self._rows(start, start + row_multiple() if is_single else page_end)
            yield _Pass(work, first, start, end, stop)
            start = end

    def _rows(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first and the last row of a pass: a multiple of rows, within the base."""
        stop = min(stop, self._limit) if self._limit else stop
        first = start - padding_of(stop - start)
        return (first, stop) if first >= 0 else (0, stop - first)

    def _run(self, one: _Pass) -> Tensor:
        """Return the logits `[n, vocabulary]` of a pass's wanted positions."""
        wanted = one.wanted
        rows = [position - one.first for position in wanted] or [one.end - 1 - one.first]
        sequence = self._pass_sequence(one, len(rows))
        step = pack(
            Batch((), (Work(sequence, one.first, one.stop, samples=True),)),
            self._page_size,
            self._device,
            self._kept,
        )
        count = one.end - one.start
        span = Span(one.start - one.first, count, one.start, tuple(one.work.sequence.pages))
        keep = sent(torch.tensor(rows + [rows[-1]] * padding_of(len(rows))), self._device)
        self._injection.switch.plan = step.plan
        options = {"logits_to_keep": keep} if self._keeps_rows else {}
        if self._takes_positions:
            options["position_ids"] = step.positions
        try:
            output: Any = self._injection.model(
                input_ids=step.ids,
                past_key_values=SequenceCache(self._cells, span, one.first),
                use_cache=True,
                **options,
            )
        finally:
            self._injection.switch.plan = None
        logits: Tensor = output.logits[0]
        return (logits if self._keeps_rows else logits[keep])[: len(wanted)]

    def _pass_sequence(self, one: _Pass, num_wanted: int) -> TokenSequence:
        """Return a sequence of the pass's rows alone, with tokens for the unused ones.

        As many rows as are wanted count as scored: all have one adapter, so any rows will do.
        """
        sequence = one.work.sequence
        missing = one.stop - one.end
        tokens = (*sequence.tokens[: one.end], *[0] * missing)
        scored = dict.fromkeys(range(one.first, one.first + num_wanted - 1), 0)
        rows = TokenSequence(tokens, Sampling(max_tokens=1, scored=scored), sequence.lease)
        rows.pages = [*sequence.pages, *[_PADDING_PAGE] * missing]
        return rows


def _limit(model: nn.Module) -> int | None:
    """Return the most positions that the base has; None if it has no limit."""
    config: Any = model.config
    text = config.get_text_config()
    found = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
    return int(found) if found and found > 0 else None

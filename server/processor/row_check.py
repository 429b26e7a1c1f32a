"""Measures at a first start whether answers depend on their neighbours on this machine.

First the products of a step (adapters_core/layers/invariance.py), then whole steps: sequences alone
and in one piece, together and in pieces; an encoder's texts alone and in one batch.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from adapters_core.base.encoder_probe import Texts, image_inputs
from adapters_core.contract.method import Method, Shape
from adapters_core.contract.rows import row_multiple, set_row_multiple
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.invariance import (
    RowProduct,
    moving_product,
    products_of,
    products_of_methods,
)
from server.base.loading import Base
from server.encoding.encoder import Encoder, Input, group_of
from server.engine.engine import Engine
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

_LOG = logging.getLogger("overtone")
_MULTIPLES = (4, 8, 16, 32, 64)
#: Prompts within a page, over one, and over two; each is followed by single tokens.
_LENGTHS = (3, 17, 33, 70)
_SINGLES = 2
#: Tokens of a prompt's pieces, in one run after another.
_PIECES = (13, 37)
#: Products of weight and row that the steps may cost: a few seconds of two cores.
_PRODUCTS = 1 << 38
#: A text of an encoder.
_TEXT = 5


class NotInvariant(Exception):
    """`--deterministic` is set, and answers depend on their neighbours."""


class NeedsSearch(Exception):
    """Answers depend on their neighbours; another setting of the matrix library may help."""


@dataclass(frozen=True)
class RowReport:
    """Whether an answer's bits do not depend on its neighbours.

    Args:
        moved: the first product or step whose bits do; None if none.
        multiple: of rows that products run over.
        is_promised: whether independence is promised on this device.
        may_improve: whether another setting of the matrix library may hold, or be cheaper.
    """

    moved: str | None
    multiple: int
    is_promised: bool = True
    may_improve: bool = False

    @property
    def holds(self) -> bool:
        """Return whether no answer depends on its neighbours."""
        return self.moved is None


def unchecked(device: torch.device) -> RowReport:
    """Return the report of a device on which nothing is promised and so nothing is measured."""
    return RowReport(f"not measured on {device.type}", row_multiple(), is_promised=False)


def require_own_rows(report: RowReport, deterministic: bool, can_search: bool) -> None:
    """Log a dependence that was found; raise where it must not be served so.

    Raises:
        NeedsSearch: another setting, not tried yet, may hold or be cheaper.
        NotInvariant: `deterministic` is set.
    """
    if not report.is_promised:
        return
    if can_search and report.may_improve:
        raise NeedsSearch("rows keep their bits over large multiples only, or not at all")
    if report.holds:
        return
    why = f"an answer's last bits depend on its neighbours here: {report.moved} moves"
    if deterministic:
        raise NotInvariant(f"{why}; serve without --deterministic, or in float32 (--dtype)")
    _LOG.warning("%s; answers are right, but do not repeat bit by bit", why)


def check_products(
    model: nn.Module, methods: Iterable[Method], shapes: Iterable[Shape], basis_cache: BasisCache
) -> RowReport:
    """Find the least multiple of rows over which products keep their bits, and set it.

    Where none does, the multiple stays as it was. Call before anything is packed.
    """
    methods, shapes = list(methods), list(shapes)
    return least_multiple(
        lambda: chain(products_of(model), products_of_methods(methods, shapes, basis_cache)),
        basis_cache.device,
    )


def least_multiple(products: Callable[[], Iterable[RowProduct]], device: torch.device) -> RowReport:
    """Find the least multiple of rows over which these products keep their bits, and set it."""
    before = row_multiple()
    first: str | None = None
    for multiple in (before, *(m for m in _MULTIPLES if m > before)):
        set_row_multiple(multiple)
        moved = moving_product(products(), device)
        if moved is None:
            return RowReport(None, multiple, may_improve=multiple > _MULTIPLES[0])
        first = first or moved
    set_row_multiple(before)
    return RowReport(first, before, may_improve=True)


def check_steps(report: RowReport, computes: Engine | Encoder, base: Base) -> RowReport:
    """Return `report` with the result of whole steps of the base; call before it serves."""
    if isinstance(computes, Engine):
        moved = moving_step(computes, base.vocabulary, _lengths(base))
    elif base.kind == "image classifier":
        images = image_inputs(base.images, next(base.model.parameters()))["pixel_values"]
        moved = moving_input(computes, list(images.float()), base.max_length)
    else:
        length = min(_TEXT, base.max_length)
        made = Texts.of(base.model, base.tokenizer, base.max_length)
        texts: list[Input] = [made.text(length, n) for n in range(5)]
        moved = moving_input(computes, texts, base.max_length, base.spec.pads)
    return replace(report, moved=moved)


def _lengths(base: Base) -> list[int]:
    """Return the prompts' lengths that the base takes, within the bound on products."""
    lengths = [n for n in _LENGTHS if n + _SINGLES <= base.max_length]
    weights = sum(parameter.numel() for parameter in base.model.parameters())
    affordable = _PRODUCTS / (1 + len(_PIECES)) / max(1, weights)
    while len(lengths) > 2 and sum(lengths) > affordable:
        lengths.pop()
    return lengths


@torch.inference_mode()
def moving_step(engine: Engine, vocabulary: int, lengths: Sequence[int]) -> str | None:
    """Return the sequence with logits that depend on its neighbours; None if there is none.

    Args:
        engine: before it serves; all of its pages are free.
        vocabulary: number of token ids.
        lengths: of the prompts.
    """
    pool = PagePool(engine.num_pages, engine.page_size)
    if sum(pool.pages_for(n + _SINGLES) for n in lengths) > pool.num_free:
        lengths = lengths[:1]
    alone = [_run(engine, [_sequence(n, vocabulary)], pool, n)[0] for n in lengths]
    for piece in _PIECES:
        together = _run(engine, [_sequence(n, vocabulary) for n in lengths], pool, piece)
        for length, one, other in zip(lengths, alone, together, strict=True):
            if not torch.equal(one, other):
                return f"a sequence of {length} tokens"
    return None


def moving_input(
    encoder: Encoder, inputs: list[Input], max_length: int, pads: bool = True
) -> str | None:
    """Return which of the inputs, all of one group, depends on its neighbours; None if none."""
    group = group_of(inputs[0], max_length, pads)
    together = encoder.run(inputs, group, [None] * len(inputs))
    for number, (one, expected) in enumerate(zip(inputs, together, strict=True)):
        if not torch.equal(encoder.run([one], group, [None])[0], expected):
            return f"input {number} of a batch"
    return None


def _sequence(length: int, vocabulary: int) -> TokenSequence:
    tokens = _tokens(length + _SINGLES, vocabulary, length)
    return TokenSequence(tuple(tokens), Sampling(max_tokens=1))


def _tokens(count: int, vocabulary: int, seed: int) -> list[int]:
    return [(7 + 31 * i + seed) % vocabulary for i in range(count)]


def _run(
    engine: Engine, sequences: list[TokenSequence], pool: PagePool, piece: int
) -> list[Tensor]:
    """Return the logits `[1 + singles, vocabulary]` of each: its prompt's, then single tokens'."""
    for sequence in sequences:
        sequence.pages = pool.allocate(pool.pages_for(len(sequence.tokens))) or []
    found: list[list[Tensor]] = [[] for _ in sequences]
    for batch in _batches(sequences, piece):
        logits = engine.logits(batch)
        wanted = [sequences.index(work.sequence) for work in batch.works if work.samples]
        for number, row in zip(wanted, logits, strict=True):
            found[number].append(row.clone())
    for sequence in sequences:
        pool.release(sequence.pages)
    return [torch.stack(rows) for rows in found]


def _batches(sequences: list[TokenSequence], piece: int) -> Iterator[Batch]:
    """Yield steps until every sequence is computed: pieces of prompts beside single tokens."""
    done = [0] * len(sequences)
    while any(n < len(s.tokens) for n, s in zip(done, sequences, strict=True)):
        decode: list[Work] = []
        prefill: list[Work] = []
        for number, sequence in enumerate(sequences):
            start, prompt = done[number], len(sequence.tokens) - _SINGLES
            if start == len(sequence.tokens):
                continue
            is_single = start >= prompt
            stop = start + 1 if is_single else min(prompt, start + piece)
            work = Work(sequence, start, stop, samples=stop >= prompt)
            (decode if is_single else prefill).append(work)
            done[number] = stop
        yield Batch(tuple(decode), tuple(prefill))

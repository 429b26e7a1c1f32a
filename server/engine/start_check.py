"""Compares this engine's logits for this base with transformers' own forward pass.

At the first start with a base, before anything is served: a text longer than the base's windows and
chunks where that takes seconds (mask_patterns.py evaluates the masks' own functions at the borders
of longer ones), in pieces and token by token; in the same steps, shorter texts with two different
adapters on every linear and the input embedding, factored, and one that is merged. The adapters are
random and large. The reference is transformers' forward pass with the updates added to each layer's
output.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.base.module_rows import RowsNotKnown
from adapters_core.contract.method import Coefficients
from adapters_core.layers.bank import Bank
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection
from adapters_core.layers.linear import AdaptedLayer
from server.adapters.payload import Merged
from server.adapters.probe_updates import Updates, added, dense, layout_of, packed, random_updates
from server.adapters.residency import Entry
from server.engine.mask_patterns import UnsupportedAttention
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_TOLERANCE_HALF = 0.1
#: Norm of an update, as a share of its linear's weight.
_STRENGTH = 0.5
#: Tokens of the long text without a window, and beyond a window's end.
_USUAL, _BEHIND = 40, 24
#: Products of weight and row that the long text may cost: a few seconds of two cores.
_PRODUCTS = 1 << 38
#: Bytes of merged weights made for the check.
_MERGED_BYTES = 1 << 28
_SINGLES = 3
#: Fields of configs that say how far a row sees.
_WINDOWS = ("sliding_window", "attention_chunk_size", "local_attention", "window_size")


@dataclass(frozen=True)
class _Text:
    """One text of the check.

    Args:
        what: describes it in a refusal.
        sequence: its tokens and adapter.
        cut: where the second piece of its prompt begins.
        expected: transformers' logits `[T, vocabulary]`.
    """

    what: str
    sequence: TokenSequence
    cut: int
    expected: Tensor

    @property
    def alone(self) -> int:
        """Return from where its tokens are computed one by one."""
        return len(self.sequence.tokens) - _SINGLES


class StartCheck:
    """A base's own logits, computed before its attention is replaced.

    Args:
        injection: of the base, as transformers computes it.
        num_pages: of the engine's cache.
        page_size: tokens a page.
        border: of longrope rotations; see rotations.py.
    """

    def __init__(
        self, injection: Injection, num_pages: int, page_size: int, border: int | None
    ) -> None:
        self._injection = injection
        self._name = type(injection.model).__name__
        self._pool = PagePool(num_pages, page_size)
        self._border = border
        with torch.inference_mode(), self._refusing("run a text with adapters"):
            self._texts = list(self._made())

    @torch.inference_mode()
    def hold(self, logits: Callable[[Batch], Tensor]) -> None:
        """Compare an engine's steps with transformers' logits.

        Args:
            logits: computes a step.

        Raises:
            UnsupportedAttention: the base computes something that this engine does not.
        """
        for batch in self._steps():
            with self._refusing("run the rows of several texts in one step"):
                got = logits(batch)
            self._compare(batch, got)

    @contextmanager
    def _refusing(self, what: str) -> Iterator[None]:
        """Turn an exception of the base's own code into a refusal."""
        try:
            yield
        except UnsupportedAttention:
            raise
        except RowsNotKnown as error:
            raise UnsupportedAttention(f"{self._name} cannot {what}: {error}") from error
        except Exception as error:
            raise UnsupportedAttention(
                f"{self._name} cannot {what}: {type(error).__name__}: {error}"
            ) from error

    def _made(self) -> Iterator[_Text]:
        """Yield the texts; where the cache has no pages for all of them, those it has pages for."""
        model = self._injection.model
        layers = _checked(self._injection)
        first, second = (random_updates(layers, layers, seed, _STRENGTH) for seed in (1, 2))
        some = _some_of(first, layers)
        entries = _factored(layers, (first, second)) if layers else [None, None]
        room = self._pool.num_pages * self._pool.page_size
        plans: list[tuple[str, int, Updates, Any]] = [
            ("without an adapter", min(_long_enough(model), room), {}, None),
            ("with an adapter of its own, factored", 7, first, entries[0]),
            ("with an adapter of its own, factored", 37, second, entries[1]),
            ("with an adapter of its own, merged", 14, some, _merged(layers, some)),
        ]
        for number, (what, length, update, entry) in enumerate(plans):
            pages = self._pool.allocate(self._pool.pages_for(length))
            if pages is None:
                continue
            tokens = _tokens(model, length, number)
            sequence = TokenSequence(tokens, Sampling(max_tokens=1), entry, border=self._border)
            sequence.pages = pages
            cut = length // 2 if number != 1 else 0
            yield _Text(what, sequence, cut, _reference(model, layers, tokens, update))

    def _steps(self) -> Iterator[Batch]:
        """Yield steps: first pieces, the rest of the prompts, single tokens."""
        texts = [text.sequence for text in self._texts]
        yield Batch((), tuple(_work(t.sequence, 0, t.cut) for t in self._texts if t.cut))
        yield Batch((), tuple(_work(t.sequence, t.cut, t.alone) for t in self._texts))
        for i in range(_SINGLES):
            ends = [len(sequence.tokens) - _SINGLES + i for sequence in texts]
            works = [_work(s, end, end + 1) for s, end in zip(texts, ends, strict=True)]
            is_merged = [_is_merged(work.sequence) for work in works]
            if i == 0:  # all together, then by kinds, as a device records its steps
                yield Batch(tuple(works), ())
                continue
            for kind in (False, True):
                chosen = [w for w, merged in zip(works, is_merged, strict=True) if merged is kind]
                if chosen:
                    yield Batch(tuple(chosen), ())

    def _compare(self, batch: Batch, got: Tensor) -> None:
        known = {id(text.sequence): text for text in self._texts}
        for work, row in zip(batch.works, got, strict=True):
            text = known[id(work.sequence)]
            expected = text.expected[work.stop - 1]
            error = float((row - expected).float().norm() / expected.float().norm())
            if not error <= _TOLERANCE.get(expected.dtype, _TOLERANCE_HALF):
                raise UnsupportedAttention(
                    f"this engine's logits differ by {error:.1e} from transformers' own for "
                    f"{self._name}, at token {work.stop} of a text {text.what}: it computes "
                    "something that is not supported"
                )


def _checked(injection: Injection) -> dict[str, AdaptedLayer]:
    """Return the layers that the check's adapters change: the linears and the input embedding.

    In half precision a mixture sends a token to other experts after the least rounding; an update
    of the embedding moves every token, so such bases are checked with updates of linears alone.
    """
    layers: dict[str, AdaptedLayer] = dict(injection.linears)
    is_half = any(layer.weight.dtype.itemsize < 4 for layer in injection.embeddings.values())
    return layers if injection.experts and is_half else layers | injection.embeddings


def _work(sequence: TokenSequence, start: int, stop: int) -> Work:
    return Work(sequence, start, stop, samples=True)


def _is_merged(sequence: TokenSequence) -> bool:
    return isinstance(sequence.lease, Entry) and isinstance(sequence.lease.payload, Merged)


def _tokens(model: nn.Module, length: int, number: int) -> tuple[int, ...]:
    vocabulary = model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
    return tuple((7 + number + (31 + 2 * number) * i) % vocabulary for i in range(length))


def _long_enough(model: nn.Module) -> int:
    """Return the long text's length: beyond every window, within the bound on products."""
    config: Any = model.config
    text = config.get_text_config()
    given = [getattr(text, name, None) for name in _WINDOWS]
    weights = sum(parameter.numel() for parameter in model.parameters())
    affordable = max(_USUAL, _PRODUCTS // max(1, weights))
    wanted = [size + _BEHIND for size in given if isinstance(size, int) and size > 0]
    longest = getattr(text, "max_position_embeddings", None) or affordable
    fitting = [size for size in wanted if size <= min(affordable, longest)]
    return min([max([_USUAL, *fitting]), *([longest] if longest > 0 else [])])


def _some_of(update: Updates, layers: Mapping[str, AdaptedLayer]) -> Updates:
    """Return the update of one linear of each kind, as far as merged copies may take memory."""
    kinds = {path.rpartition(".")[2]: path for path in update}
    chosen: dict[str, Coefficients] = {}
    used = 0
    for path in kinds.values():
        used += layers[path].golden().nbytes
        if used > _MERGED_BYTES and chosen:
            break
        chosen[path] = update[path]
    return chosen


def _factored(layers: Mapping[str, AdaptedLayer], updates: tuple[Updates, ...]) -> list[Any]:
    """Return the entries of adapters that share a bank."""
    shapes = {path: layer.shape for path, layer in layers.items()}
    embeddings = [path for path, layer in layers.items() if layer.is_looked_up]
    layout = layout_of(shapes, shapes, embeddings)
    device = next(iter(layers.values())).golden().device
    bank = Bank(layout, BasisCache(device), slots=len(updates))
    return [
        Entry((f"start check {number}", "factored"), payload=packed(bank, update))
        for number, update in enumerate(updates)
    ]


def _merged(layers: Mapping[str, AdaptedLayer], updates: Updates) -> Entry | None:
    if not updates:
        return None
    weights = {}
    for path, update in updates.items():
        golden = layers[path].golden()
        weights[path] = (golden.float() + dense(update).to(golden.device)).to(golden.dtype)
    return Entry(("start check", "merged"), payload=Merged(weights))


def _reference(
    model: nn.Module, layers: Mapping[str, AdaptedLayer], tokens: tuple[int, ...], given: Updates
) -> Tensor:
    """Return transformers' logits `[T, vocabulary]`, an update added to each linear's output."""
    device = next(model.parameters()).device
    with added(layers, given):
        output = model(input_ids=torch.tensor([tokens], device=device), use_cache=False)
    logits: Tensor = output.logits[0]
    return logits

"""Which earlier tokens each layer's rows see, read from the masks that transformers makes itself.

transformers' own attention implements windows and chunks by its masks alone; the arguments that a
layer passes beside them are for other kernels. So a short forward pass is run at start in which
every mask is kept with the function that defines it. That function is evaluated at positions beyond
the window, which costs little, and must be one of the patterns that this engine computes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

_NAME = "overtone_patterns"
#: Tokens of the forward pass that learns the patterns.
_NUM_TOKENS = 4
#: Arguments of an attention function that change its result and are not computed here.
REFUSED = ("position_bias", "score_mod", "indices", "block_indices", "sinks")


class UnsupportedAttention(Exception):
    """The base's attention needs something that this engine does not compute."""


@dataclass(frozen=True)
class MaskPattern:
    """A row sees its own token and earlier ones: the last `window`, or those of its own chunk.

    Args:
        window: tokens, its own among them.
        chunk: tokens; position i sees from `i // chunk * chunk` on.
    """

    window: int | None = None
    chunk: int | None = None

    def first(self, position: int) -> int:
        """Return the first token that a row at `position` sees."""
        start = max(0, position - self.window + 1) if self.window else 0
        return max(start, position // self.chunk * self.chunk) if self.chunk else start

    def mask(self, own: Tensor, other: Tensor) -> Tensor:
        """Return whether rows at `own` see tokens at `other`, bool, broadcast."""
        seen = other <= own
        if self.window:
            seen = seen & (other > own - self.window)
        if self.chunk:
            seen = seen & (other >= own.div(self.chunk, rounding_mode="floor") * self.chunk)
        return seen


def pattern_of(mask_function: Callable[..., Tensor], local_size: int | None) -> MaskPattern | None:
    """Return the pattern of one of transformers' mask functions; None if it is not supported.

    Args:
        mask_function: `(batch, head, query, key)` indices, broadcast, to whether it is seen.
        local_size: the window or the chunk that transformers names beside it.
    """
    candidates = [MaskPattern()]
    if local_size:
        candidates += [MaskPattern(window=local_size), MaskPattern(chunk=local_size)]
    size = local_size or 64
    borders = [edge + step for edge in (0, size, 2 * size) for step in (-1, 0, 1)]
    own = torch.tensor([i for i in borders if i >= 0]).view(1, 1, -1, 1)
    other = torch.arange(2 * size + 3).view(1, 1, 1, -1)
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.long)
    try:
        seen = mask_function(zero, zero, own, other)
    except (IndexError, RuntimeError, TypeError):  # it reads what belongs to its own rows only
        return None
    seen = seen.expand(1, 1, own.shape[2], other.shape[3])
    return next((one for one in candidates if torch.equal(one.mask(own, other), seen)), None)


@dataclass
class _Book:
    """Replaces attention and masks in one forward pass; records the pattern of each layer.

    Args:
        masks: that were made, each with its pattern.
        patterns: of the attention modules that were called, by their number in the cache.
    """

    masks: list[tuple[Tensor, MaskPattern | None]] = field(default_factory=list)
    patterns: dict[int, MaskPattern] = field(default_factory=dict)

    def mask(
        self,
        *args: Any,
        mask_function: Callable[..., Tensor],
        local_size: int | None = None,
        device: Any = "cpu",
        **others: Any,
    ) -> Tensor:
        """Return a new mask tensor; its pattern is looked up by the tensor's address."""
        shape = (1, 1, _NUM_TOKENS, _NUM_TOKENS)
        made = torch.ones(shape, dtype=torch.bool, device=device)
        self.masks.append((made, pattern_of(mask_function, local_size)))
        return made

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        """Note what a layer sees; return zeros `[1, T, heads, d]`."""
        refuse_arguments(others)
        layer = module.layer_idx
        assert isinstance(layer, int)
        if layer in self.patterns:
            raise UnsupportedAttention(f"its attention runs twice in layer {layer}")
        self.patterns[layer] = self._seen(module, attention_mask, others.get("is_causal"))
        shape = (query.shape[0], query.shape[2], query.shape[1], value.shape[3])
        return query.new_zeros(shape), None

    def _seen(self, module: nn.Module, mask: Tensor | None, is_causal: bool | None) -> MaskPattern:
        if mask is None:
            if is_causal if is_causal is not None else getattr(module, "is_causal", True):
                return MaskPattern()
            raise UnsupportedAttention("its attention sees tokens that come later")
        for made, pattern in self.masks:
            if pattern is not None and made.data_ptr() == mask.data_ptr():
                return pattern
        raise UnsupportedAttention(
            "its attention uses a mask that is none of: causal, with a sliding window, in chunks"
        )


def refuse_arguments(others: dict[str, Any]) -> None:
    """Refuse an attention function's arguments that change its result and are not computed here.

    Raises:
        UnsupportedAttention: naming the argument.
    """
    for name in REFUSED:
        if others.get(name) is not None:
            raise UnsupportedAttention(f"the base's attention uses {name}, which is not served")


@torch.inference_mode()
def mask_patterns_of(model: nn.Module) -> dict[int, MaskPattern]:
    """Return what each layer of a causal LM sees, by `layer_idx` of its attention module.

    Changes the model's attention implementation: the caller sets its own afterwards.

    Raises:
        UnsupportedAttention: it does not use transformers' AttentionInterface, or has a pattern
            that `MaskPattern` does not describe.
    """
    if not model._can_set_attn_implementation():  # type: ignore[operator]
        raise UnsupportedAttention(f"{type(model).__name__} has attention code of its own")
    book = _Book()
    AttentionInterface.register(_NAME, book.attend)
    AttentionMaskInterface.register(_NAME, book.mask)
    model.set_attn_implementation(_NAME)  # type: ignore[operator]
    ids = torch.arange(_NUM_TOKENS, device=next(model.parameters()).device)[None]
    model(input_ids=ids, use_cache=False)
    if not book.patterns:
        raise UnsupportedAttention(f"{type(model).__name__} has attention code of its own")
    return book.patterns

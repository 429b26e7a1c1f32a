"""Rotations that depend on a text's length, for each row by its own text alone.

With `longrope` (Phi 3.5, Phi 4 mini) the angles of all positions change as soon as a text is longer
than what the base was first trained on, the border. transformers decides by the longest row of a
batch; here every row follows its own sequence. The keys of a sequence that grows over the border
have the angles of shorter texts: the scheduler computes all its tokens again. So each token is that
of one forward pass of transformers over the text so far, as in Phi 3's `generate`.

`dynamic` angles change beyond `max_position_embeddings` only; the server takes no longer texts.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters_core.base.rotations import LONG_ROPE
from server.engine.mask_patterns import UnsupportedAttention


def rotate_by_rows(model: nn.Module, border: int, is_long: Callable[[], Tensor | None]) -> None:
    """Make the model's rotations follow each row's own text.

    Args:
        model: with rotations in modules that have a `rope_type`.
        border: of `border_of`.
        is_long: returns bool `[1, T]`, whether each row's text is longer than the border; None if
            no row's is.

    Raises:
        UnsupportedAttention: its rotations are made in another way.
    """
    found = [module for module in model.modules() if _is_long_rope(module)]
    if not found:
        raise UnsupportedAttention(
            f"{type(model).__name__} makes its 'longrope' rotations by code of its own"
        )
    for module in found:
        module.forward = _by_rows(module.forward, border, is_long)


def refuse_counted_rows(model: nn.Module) -> None:
    """Refuse what scales queries by the row's number in the step (Llama 4's layers without RoPE).

    Raises:
        UnsupportedAttention: and texts may be long enough for the scale to be other than one.
    """
    config: Any = model.config
    text = config.get_text_config()
    floor = getattr(text, "floor_scale", None)
    counts = getattr(text, "attn_temperature_tuning", False) and floor is not None
    if counts and text.max_position_embeddings >= floor:
        raise UnsupportedAttention(
            f"{type(model).__name__} scales queries by the numbers of a step's rows "
            f"(attn_temperature_tuning, from {floor} tokens on)"
        )


def _is_long_rope(module: nn.Module) -> bool:
    kind: Any = getattr(module, "rope_type", None)
    return LONG_ROPE in kind.values() if isinstance(kind, dict) else kind == LONG_ROPE


def _by_rows(
    forward: Callable[..., tuple[Tensor, Tensor]],
    border: int,
    is_long: Callable[[], Tensor | None],
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return a rotation's forward that computes both kinds of angles by transformers' own."""

    def rotated(
        x: Tensor, position_ids: Tensor, *args: Any, **others: Any
    ) -> tuple[Tensor, Tensor]:
        long = is_long()
        if long is None:
            return forward(x, position_ids, *args, **others)
        short = forward(x, position_ids.masked_fill(long, 0), *args, **others)
        # A position beyond the border makes transformers take the longer text's angles for all.
        beyond = forward(x, F.pad(position_ids, (0, 1), value=border), *args, **others)
        cos, sin = (
            torch.where(long[..., None], b[:, :-1], s) for b, s in zip(beyond, short, strict=True)
        )
        return cos, sin

    return rotated

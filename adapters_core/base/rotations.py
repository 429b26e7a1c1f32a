"""Rotations with angles that depend on how long a text is: where they change.

With `longrope` (Phi 3.5, Phi 4 mini) the angles of all positions are others as soon as a text is
longer than what the base was first trained on, the border. transformers decides by the longest row
of a batch, so a short text beside a long one gets another answer than alone.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

LONG_ROPE = "longrope"


def border_of(model: nn.Module) -> int | None:
    """Return up to how many tokens a text has the shorter angles; None: angles never change.

    Raises:
        ValueError: angles change at several lengths.
    """
    borders = {
        int(part["original_max_position_embeddings"])
        for part in _rope_parameters(model)
        if part.get("rope_type") == LONG_ROPE
    }
    if len(borders) > 1:
        raise ValueError(
            f"the base's 'longrope' rotations change at several lengths ({sorted(borders)} "
            "tokens), which is not served"
        )
    return borders.pop() if borders else None


def _rope_parameters(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Yield the parameters of all layers, or those of each kind of them."""
    config: Any = model.config
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    for part in (rope, *rope.values()):
        if isinstance(part, dict):
            yield part

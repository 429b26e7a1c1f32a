"""A version's held-out metrics compared with those of its base or of another version. Pure."""

import math
from collections.abc import Mapping
from typing import Any

#: The key of the base's own metrics within a version's.
BASE = "base"
#: The held-out loss, which every task measures.
LOSS = "eval_loss"
_LOWER_IS_BETTER = frozenset({LOSS, "train_loss", "perplexity"})


def is_better(metric: str, value: float, than: float) -> bool:
    """Return whether a metric's value is better than another; NaN is worse than all others."""
    if math.isnan(value):
        return False
    return math.isnan(than) or (value < than if metric in _LOWER_IS_BETTER else value > than)


def losses(metrics: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the held-out losses of a version and of its base; None if one was not measured."""
    own, base = metrics.get(LOSS), dict(metrics.get(BASE) or {}).get(LOSS)
    if not isinstance(own, int | float) or not isinstance(base, int | float):
        return None
    return own, base


def is_better_than_base(metrics: Mapping[str, Any]) -> bool | None:
    """Return whether a version's held-out loss is below its base's; None if it is not known."""
    both = losses(metrics)
    return None if both is None else is_better(LOSS, *both)

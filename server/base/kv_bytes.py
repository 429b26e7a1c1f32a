"""How many bytes of keys and values a token takes, by a base's config."""

from collections.abc import Iterable
from typing import Any


def kv_token_bytes(config: Any, item_bytes: int) -> int:
    """Return the bytes of one token's keys and values over all layers.

    Args:
        config: of the base's text part.
        item_bytes: of one number.

    Raises:
        ValueError: the base has no attention heads.
    """
    return sum(2 * heads * width * item_bytes for heads, width in _layers(config))


def _layers(config: Any) -> Iterable[tuple[int, int]]:
    """Return heads and their width, layer by layer."""
    count: int = config.num_hidden_layers
    # Gemma 4's layers differ in width; its config answers for one layer at a time only.
    each = getattr(config, "per_layer_config", None) or [config] * count
    return [_heads(layer) for layer in each]


def _heads(config: Any) -> tuple[int, int]:
    queries = getattr(config, "num_attention_heads", None)
    if not queries:
        raise ValueError(
            "its config.json has no num_attention_heads: a base without attention (a state-space "
            "model) is not served"
        )
    given = getattr(config, "num_key_value_heads", None) or queries
    heads, width = _most(given), getattr(config, "head_dim", None)
    return heads, _most(width) if width else config.hidden_size // _most(queries)


def _most(number: Any) -> int:
    """Return a number, or the largest of a list that has one for each layer."""
    return max(number) if isinstance(number, list | tuple) else int(number)

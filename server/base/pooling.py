"""Pooling: from an embedder's vectors of tokens to one vector.

In a sentence-transformers folder `modules.json` lists the steps and `1_Pooling/config.json` the way
of pooling. For any other base it is the mean over the text's tokens, scaled to length 1.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.hub import cached_file

from server.base.preparation import Preparation, preparation_of

Way = Literal["cls", "mean", "max", "lasttoken", "mean_sqrt_len_tokens"]

_MODULES = "modules.json"
#: Old files have one flag per way, newer ones a name.
_FLAGS: dict[str, Way] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}


@dataclass(frozen=True)
class Pooling:
    """How vectors of tokens become one.

    Args:
        way: of a sentence-transformers Pooling module.
        normalize: scale the result to length 1.
        preparation: of texts before the tokenizer.
    """

    way: Way = "mean"
    normalize: bool = True
    preparation: Preparation = field(default_factory=Preparation)

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return float32 `[B, width]` for hidden `[B, L, width]`, mask `[B, L]`, padded right."""
        hidden = hidden.float()
        pooled = self._pooled(hidden, mask.bool())
        return F.normalize(pooled, dim=1) if self.normalize else pooled

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(1)
        if self.way == "cls":
            return hidden[:, 0]
        if self.way == "lasttoken":
            return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
        if self.way == "max":
            return hidden.masked_fill(~mask[:, :, None], -torch.inf).amax(1)
        total = hidden.masked_fill(~mask[:, :, None], 0).sum(1)
        divisor = lengths.sqrt() if self.way == "mean_sqrt_len_tokens" else lengths
        return total / divisor[:, None]


def has_modules_file(source: str) -> bool:
    """Return whether `source`, a folder or a hub id, is a sentence-transformers base."""
    return _json_of(source, _MODULES) is not None


def pooling_of(source: str) -> Pooling:
    """Return how the base at `source` pools.

    Raises:
        ValueError: its files name a step or a way that is not served, or are malformed.
    """
    modules = _json_of(source, _MODULES)
    if modules is None:
        return Pooling()
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"{_MODULES} has the steps {', '.join(kinds)}; served are Transformer, Pooling and "
            "Normalize"
        )
    if modules[0].get("path"):
        raise ValueError(f"{_MODULES}: the Transformer is not in the folder itself")
    preparation = preparation_of(lambda name: _json_of(source, name))
    config = _json_of(source, f"{modules[1]['path']}/config.json") or {}
    if config.get("include_prompt") is False and any(preparation.prompts.values()):
        raise ValueError("the Pooling config has include_prompt = false, which is not served")
    return Pooling(_way_of(config), "Normalize" in kinds, preparation)


def _way_of(config: dict[str, Any]) -> Way:
    named = config.get("pooling_mode")
    asked = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
    asked += [named] if isinstance(named, str) else list(named or ())
    chosen = {way for flag, way in _FLAGS.items() if flag in asked or way in asked}
    if len(chosen) != 1 or len(asked) != 1:
        raise ValueError(
            f"the Pooling config asks for {', '.join(asked) or 'nothing'}; one way is served, of "
            f"{', '.join(_FLAGS.values())}"
        )
    return chosen.pop()


def _json_of(source: str, name: str) -> Any:
    """Return the JSON of one of a base's files; None if there is no such file."""
    found = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if found is None:
        return None
    with open(found, encoding="utf-8") as file:
        return json.load(file)

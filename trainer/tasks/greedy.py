"""The likeliest tokens behind a prompt, one after the other."""

from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
from torch import nn

from adapters_core.base.causal_probe import keeps_rows
from registry.jobs.samples import Ending


def greedy(
    model: nn.Module,
    prompt: Sequence[int],
    stops: Set[int],
    most: int,
    goes_on: Callable[[], bool],
) -> tuple[list[int], Ending]:
    """Return the answer's tokens without the one that ends it, and how it ended.

    Args:
        model: a causal LM; with its own cache of keys and values, if it makes one.
        prompt: tokens, at least one.
        stops: tokens that end an answer.
        most: tokens of an answer.
        goes_on: asked before each token; after a False the answer ends.
    """
    device = next(model.parameters()).device
    options = {"logits_to_keep": 1} if keeps_rows(model) else {}
    ids: list[int] = []
    given, cache = list(prompt), None
    while len(ids) < most:
        if not goes_on():
            return ids, "time"
        inputs = torch.tensor([given], device=device)
        output: Any = model(input_ids=inputs, past_key_values=cache, use_cache=True, **options)
        token = int(output.logits[0, -1].argmax())
        if token in stops:
            return ids, "stop"
        ids.append(token)
        cache = output.past_key_values
        given = [*given, token] if cache is None else [token]
    return ids, "length"

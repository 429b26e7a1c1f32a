"""From logits to tokens on a CPU, each row by its own sequence's settings and random numbers.

Every row is computed alone, so that neither other rows nor their number change its token.
"""

import math

import torch
from torch import Tensor

from server.engine.adjusted_logits import adjusted
from server.engine.draw_settings import draw_settings
from server.engine.drawing import draw_rows, finite_rows
from server.scheduling.sequence import Sampled, TokenSequence


def sample(logits: Tensor, sequences: list[TokenSequence]) -> list[Sampled | None]:
    """Return one token per row of logits `[B, V]`.

    None for a row that is not finite, or that no token may follow by its sequence's constraint.
    """
    logits = logits.float()
    finite = finite_rows(logits)
    logits, impossible = adjusted(logits, sequences)
    tokens = draw_rows(logits, draw_settings(sequences))
    return [
        _sampled(logits[i], tokens[i], sequence.sampling.num_logprobs)
        if finite[i] and i not in impossible
        else None
        for i, sequence in enumerate(sequences)
    ]


def _sampled(row: Tensor, token: int, num_logprobs: int | None) -> Sampled:
    """Return a row's token with the log-probabilities that its sequence asked for."""
    if num_logprobs is None:
        return Sampled(token)
    logprobs = torch.log_softmax(row, dim=0)
    return Sampled(token, float(logprobs[token]), _likeliest(logprobs, num_logprobs))


def _likeliest(logprobs: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """Return the likeliest tokens with their log-probabilities; fewer where fewer are possible."""
    if not count:
        return ()
    top = torch.topk(logprobs, min(count, len(logprobs)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple((token, value) for token, value in pairs if value > -math.inf)

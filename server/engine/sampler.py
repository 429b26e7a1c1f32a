"""From logits to tokens, each row by its own sequence's settings and random numbers.

Every row is computed alone, so that neither other rows nor their number change its token.
"""

import math

import torch
from torch import Tensor

from server.engine.token_masks import masked
from server.scheduling.sequence import Sampled, TokenSequence


def sample(logits: Tensor, sequences: list[TokenSequence]) -> list[Sampled | None]:
    """Return one token per row of logits `[B, V]`.

    None for a row that is not finite, or that no token may follow by its sequence's constraint.
    """
    logits = logits.float()
    finite = torch.isfinite(logits).all(dim=1).tolist()
    best = logits.argmax(dim=1).tolist()
    return [
        _sample_row(logits[i], sequence, best[i]) if finite[i] else None
        for i, sequence in enumerate(sequences)
    ]


def _sample_row(row: Tensor, sequence: TokenSequence, best: int) -> Sampled | None:
    sampling = sequence.sampling
    if sampling.logit_bias:
        row = row.clone()
        for token, bias in sampling.logit_bias.items():
            row[token] += bias
        best = int(row.argmax())
    if sequence.constraint is not None:
        permitted = masked(row, sequence)
        if permitted is None:
            return None
        row, best = permitted, int(permitted.argmax())
    token = best if sampling.temperature == 0 else _draw(row, sequence)
    if sampling.num_logprobs is None:
        return Sampled(token)
    logprobs = torch.log_softmax(row, dim=0)
    return Sampled(token, float(logprobs[token]), _likeliest(logprobs, sampling.num_logprobs))


def _likeliest(logprobs: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """Return the likeliest tokens with their log-probabilities; fewer where fewer are possible."""
    if not count:
        return ()
    top = torch.topk(logprobs, count)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple((token, value) for token, value in pairs if value > -math.inf)


def _draw(row: Tensor, sequence: TokenSequence) -> int:
    """Draw one token: inverse of the cumulative distribution at the sequence's next number."""
    sampling = sequence.sampling
    row = row.double()
    # The largest logit becomes zero, so that no temperature, however small, makes it infinite.
    probabilities = torch.softmax((row - row.max()) / sampling.temperature, dim=0)
    order = None
    if sampling.top_p < 1:
        probabilities, order = probabilities.sort(descending=True, stable=True)
        before = probabilities.cumsum(0) - probabilities
        probabilities = probabilities * (before < sampling.top_p)
    cumulative = probabilities.cumsum(0)
    point = sequence.random_number() * float(cumulative[-1])
    chosen = int(
        torch.searchsorted(cumulative, torch.tensor(point, dtype=torch.float64), right=True)
    )
    chosen = min(chosen, row.numel() - 1)
    return int(order[chosen]) if order is not None else chosen

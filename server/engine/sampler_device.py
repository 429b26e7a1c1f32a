"""From logits to tokens on the device: all rows at once, and one transfer to the host.

The same rule and the same random numbers as sampler.py, whose draws are the reference: a row's
token follows from its own logits and its own sequence alone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from server.engine.adjusted_logits import adjusted
from server.engine.drawing_device import draw_on_device
from server.scheduling.sequence import Sampled, TokenSequence


@dataclass(frozen=True)
class _Columns:
    """What is read of each row, float64 `[B, ...]`; token numbers are exact in it."""

    tokens: Tensor
    finite: Tensor
    logprobs: Tensor
    top_tokens: Tensor
    top_logprobs: Tensor


def sample_on_device(logits: Tensor, sequences: list[TokenSequence]) -> list[Sampled | None]:
    """Return one token per row of logits `[B, V]`.

    None for a row that is not finite, or that no token may follow by its sequence's constraint.
    """
    if not sequences:
        return []
    logits = logits.float()
    finite = torch.isfinite(logits).all(dim=1)
    logits, impossible = adjusted(logits, sequences)
    tokens = draw_on_device(logits, sequences)
    columns = _Columns(tokens, finite, *_reported(logits, tokens, sequences))
    return [
        None if row in impossible else one for row, one in enumerate(_sampled(columns, sequences))
    ]


def _reported(
    logits: Tensor, tokens: Tensor, sequences: list[TokenSequence]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each token's log-probability `[B]` and the likeliest alternatives `[B, k]`, twice."""
    asked = [sequence.sampling.num_logprobs for sequence in sequences]
    none = logits.new_zeros(len(asked), 0)
    if all(count is None for count in asked):
        return none, none, none
    logprobs = torch.log_softmax(logits, dim=1)
    own = logprobs.gather(1, tokens[:, None])
    most = min(logits.shape[1], max(count or 0 for count in asked))
    top = torch.topk(logprobs, most, dim=1)
    return own, top.indices, top.values


def _sampled(columns: _Columns, sequences: list[TokenSequence]) -> list[Sampled | None]:
    """Read all columns in one transfer and return each row's token."""
    most = columns.top_tokens.shape[1]
    pieces = [columns.finite[:, None], columns.tokens[:, None], columns.top_tokens]
    pieces += [columns.logprobs, columns.top_logprobs]
    rows = torch.cat([piece.double() for piece in pieces], dim=1).tolist()
    answers: list[Sampled | None] = []
    for (finite, token, *rest), sequence in zip(rows, sequences, strict=True):
        count = sequence.sampling.num_logprobs
        if not finite:
            answers.append(None)
        elif count is None:
            answers.append(Sampled(int(token)))
        else:
            names, values = rest[:most], rest[most + 1 :]
            given = zip(names[:count], values[:count], strict=True)
            pairs = tuple((int(name), value) for name, value in given if value > -math.inf)
            answers.append(Sampled(int(token), rest[most], pairs))
    return answers

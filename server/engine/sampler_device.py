"""From logits to tokens on the device: all rows at once, and one transfer to the host.

The same rule and the same random numbers as sampler.py, whose draws are the reference: a row's
token follows from its own logits and its own sequence alone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from server.engine.token_masks import masked_together
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
    logits, impossible = masked_together(_biased(logits, sequences), sequences)
    tokens = _drawn(logits, sequences)
    columns = _Columns(tokens, finite, *_reported(logits, tokens, sequences))
    return [
        None if row in impossible else one for row, one in enumerate(_sampled(columns, sequences))
    ]


def _biased(logits: Tensor, sequences: list[TokenSequence]) -> Tensor:
    """Return the logits with each sequence's `logit_bias` added; a copy if any has one."""
    found = [
        (row, token, bias)
        for row, sequence in enumerate(sequences)
        for token, bias in sequence.sampling.logit_bias.items()
    ]
    if not found:
        return logits
    rows, tokens, biases = zip(*found, strict=True)
    where = torch.tensor([rows, tokens], device=logits.device)
    added = torch.tensor(biases, dtype=logits.dtype, device=logits.device)
    biased = logits.clone()
    biased[where[0], where[1]] += added  # a row names a token once
    return biased


def _drawn(logits: Tensor, sequences: list[TokenSequence]) -> Tensor:
    """Return a token per row, int64 `[B]`."""
    tokens = logits.argmax(dim=1)
    plain = [i for i, s in enumerate(sequences) if s.sampling.temperature and s.sampling.top_p >= 1]
    nucleus = [
        i for i, s in enumerate(sequences) if s.sampling.temperature and s.sampling.top_p < 1
    ]
    for rows, cut in ((plain, False), (nucleus, True)):
        if rows:
            index = torch.tensor(rows, device=logits.device)
            drawn = _draw(logits[index], [sequences[i] for i in rows], cut)
            tokens = tokens.index_copy(0, index, drawn)
    return tokens


def _draw(logits: Tensor, sequences: list[TokenSequence], cut: bool) -> Tensor:
    """Return int64 `[B]`: the inverse of each row's cumulative distribution at its next number."""
    settings = [(s.sampling.temperature, s.sampling.top_p, s.random_number()) for s in sequences]
    numbers = torch.tensor(settings, dtype=torch.float64, device=logits.device)
    temperature, top_p, point = numbers.T[:, :, None]  # each [B, 1]
    rows = logits.double()
    # The largest logit becomes zero, so that no temperature, however small, makes it infinite.
    probabilities = torch.softmax((rows - rows.amax(1, keepdim=True)) / temperature, dim=1)
    order = None
    if cut:
        probabilities, order = probabilities.sort(dim=1, descending=True, stable=True)
        before = probabilities.cumsum(1) - probabilities
        probabilities = probabilities * (before < top_p)
    cumulative = probabilities.cumsum(1)
    chosen = torch.searchsorted(cumulative, point * cumulative[:, -1:], right=True)
    chosen = chosen.clamp(max=logits.shape[1] - 1)
    return (chosen if order is None else order.gather(1, chosen))[:, 0]


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
    top = torch.topk(logprobs, max(count or 0 for count in asked), dim=1)
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

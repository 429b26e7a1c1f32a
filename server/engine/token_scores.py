"""The log-probabilities of given tokens, kept with their sequences."""

from collections.abc import Iterator

import torch
from torch import Tensor

from adapters_core.layers.uploads import sent
from server.scheduling.sequence import TokenScore, TokenSequence
from server.scheduling.step import Batch

#: Rows of logits that are read at a time: their float32 copies stay below a few hundred megabytes
#: with the largest vocabularies.
_ROWS = 128


def score(logits: Tensor, batch: Batch) -> None:
    """Keep the scores of a step's given tokens; safe to call twice.

    Args:
        logits: `[S, vocabulary]`, the scored rows in the order of the works and their positions.
        batch: the step.
    """
    rows = [(work.sequence, position) for work in batch.works for position in work.scored]
    for first in range(0, len(rows), _ROWS):
        some = rows[first : first + _ROWS]
        found = _scores(logits[first : first + len(some)], some)
        for (sequence, position), token_score in zip(some, found, strict=True):
            sequence.scores[position] = token_score


def _scores(logits: Tensor, rows: list[tuple[TokenSequence, int]]) -> Iterator[TokenScore]:
    """Yield the score of each row's token."""
    wanted = [sequence.sampling.scored[position] for sequence, position in rows]
    counts = [sequence.sampling.num_scored_logprobs for sequence, _ in rows]
    targets = sent(torch.tensor(wanted), logits.device)[:, None]
    logprobs = torch.log_softmax(logits.float(), dim=1)
    own = logprobs.gather(1, targets)
    ranks = _ranks(logprobs, own, targets)
    top = torch.topk(logprobs, max(counts), dim=1)
    columns = zip(
        own[:, 0].tolist(), ranks.tolist(), top.indices.tolist(), top.values.tolist(), strict=True
    )
    for count, (logprob, rank, tokens, values) in zip(counts, columns, strict=True):
        alternatives = zip(tokens[:count], values[:count], strict=True)
        yield TokenScore(logprob, rank, tuple(alternatives))


def _ranks(logprobs: Tensor, own: Tensor, targets: Tensor) -> Tensor:
    """Return each row's rank of its own token, int64 `[S]`."""
    ids = torch.arange(logprobs.shape[1], device=logprobs.device)
    earlier = (logprobs == own) & (ids < targets)
    return 1 + ((logprobs > own) | earlier).sum(dim=1)

"""The log-probabilities of given tokens, kept with their sequences."""

import torch
from torch import Tensor

from server.scheduling.sequence import TokenScore
from server.scheduling.step import Batch


def score(logits: Tensor, batch: Batch) -> None:
    """Keep the scores of a step's given tokens; safe to call twice.

    Args:
        logits: `[S, vocabulary]`, the scored rows in the order of the works and their positions.
        batch: the step.
    """
    rows = [(work.sequence, position) for work in batch.works for position in work.scored]
    if not rows:
        return
    wanted = [sequence.sampling.scored[position] for sequence, position in rows]
    targets = torch.tensor(wanted, device=logits.device)
    logits = logits.float()
    logprobs = torch.log_softmax(logits, dim=1).gather(1, targets[:, None])[:, 0].tolist()
    likeliest = (logits.argmax(dim=1) == targets).tolist()
    for (sequence, position), logprob, is_likeliest in zip(rows, logprobs, likeliest, strict=True):
        sequence.scores[position] = TokenScore(logprob, is_likeliest)

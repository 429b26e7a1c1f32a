"""What sequences' settings do to logits before temperature: bias, penalties, no end too early.

Only the cells that a setting names are read and written, each computed alone: other rows, and their
number, change nothing.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters_core.layers.uploads import sent
from server.engine.penalties import penalise
from server.engine.token_masks import forbid_masked
from server.scheduling.sequence import TokenSequence

#: Sequences, each with the row that is its own.
_Rows = list[tuple[int, TokenSequence]]


def adjusted(logits: Tensor, sequences: list[TokenSequence]) -> tuple[Tensor, set[int]]:
    """Return the logits that tokens are chosen from, and the rows that no token may follow.

    In this order: logit_bias; repetition, frequency and presence penalty, as vLLM has them; no end
    token before min_tokens; the constraint. A forbidden token has minus infinity.

    Args:
        logits: float32 `[B, V]`, not changed; returned as they are if no sequence asks for more.
        sequences: of the rows.
    """
    if not any(one.adjusts_logits for one in sequences):
        return logits, set()
    logits, rows = logits.clone(), list(enumerate(sequences))
    if biased := [(i, one) for i, one in rows if one.sampling.logit_bias]:
        _add_biases(logits, biased)
    if penalised := [(i, one) for i, one in rows if one.sampling.penalises]:
        penalise(logits, [i for i, _ in penalised], [one for _, one in penalised])
    if short := [(i, one) for i, one in rows if one.sampling.min_tokens and not one.may_end]:
        _forbid_ends(logits, short)
    return logits, forbid_masked(logits, sequences)


def _add_biases(logits: Tensor, rows: _Rows) -> None:
    places = _places(logits, rows, [one.sampling.bias_tokens for _, one in rows])
    given = np.concatenate([one.sampling.bias_values for _, one in rows])
    biases = sent(torch.from_numpy(given).to(logits.dtype), logits.device)
    values = logits.view(-1).index_select(0, places)
    # In float32: largest numbers plus a bias of a hundred stay what they are.
    logits.view(-1).index_copy_(0, places, values + biases)


def _forbid_ends(logits: Tensor, rows: _Rows) -> None:
    places = _places(logits, rows, [one.sampling.stop_tokens for _, one in rows])
    logits.view(-1).index_fill_(0, places, -math.inf)


def _places(logits: Tensor, rows: _Rows, tokens: list[NDArray[np.int64]]) -> Tensor:
    """Return where the rows' tokens stand in the logits `[B, V]`, as int64 of all in one row."""
    starts = np.array([row for row, _ in rows], dtype=np.int64) * logits.shape[1]
    lengths = [len(own) for own in tokens]
    return sent(torch.from_numpy(np.concatenate(tokens) + starts.repeat(lengths)), logits.device)

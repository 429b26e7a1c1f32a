"""Penalties on the logits of tokens that a text has, for some rows: vLLM's three, in its order.

A positive logit is divided by the repetition penalty and a negative one multiplied by it; then the
frequency penalty is taken from it for each time that the answer has the token, and the presence
penalty once if it has it. In float64, and kept within the finite numbers of float32. On a CPU in a
compiled loop, since a step's cells are few and torch's calls many; elsewhere in torch's operations.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.layers.uploads import copied
from server.scheduling.sequence import TokenSequence

_LARGEST = torch.finfo(torch.float32).max
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False}


def penalise(logits: Tensor, rows: list[int], sequences: list[TokenSequence]) -> None:
    """Penalise logits `[B, V]`, float32, in place.

    Args:
        logits: contiguous.
        rows: that are penalised.
        sequences: of these rows.
    """
    counts = [one.token_counts() for one in sequences]
    lengths = np.array([len(one.tokens) for one in counts], dtype=np.int64)
    tokens = np.concatenate([one.tokens for one in counts])
    times = np.concatenate([one.counts for one in counts])
    penalties = np.array([one.sampling.penalties for one in sequences], dtype=np.float64)
    where = np.array(rows, dtype=np.int64)
    if logits.device.type == "cpu":
        _penalise_loop(logits.numpy(), where, lengths, tokens, times, penalties)
        return
    places = torch.from_numpy((where * logits.shape[1]).repeat(lengths) + tokens)
    of_cells = torch.from_numpy(penalties.repeat(lengths, axis=0))
    cells = copied([places, torch.from_numpy(times), of_cells], logits.device)
    penalise_cells(logits.view(-1), *cells)


def penalise_cells(logits: Tensor, places: Tensor, times: Tensor, penalties: Tensor) -> None:
    """Penalise some cells of logits in place, in torch's operations, on any device.

    Args:
        logits: float32 `[N]`.
        places: int64 `[C]`, none twice.
        times: int64 `[C]`, how often the answer has the cell's token.
        penalties: float64 `[C, 3]`: repetition, frequency, presence.
    """
    repeated, often, once = penalties.T
    values = logits.index_select(0, places).double()
    values = torch.where(values > 0, values / repeated, values * repeated)
    values = values - often * times - once * (times > 0)
    logits.index_copy_(0, places, values.clamp(-_LARGEST, _LARGEST).float())


def compile_penalties() -> None:
    """Compile the loop, or read it from numba's cache, so that no request waits for it."""
    none = np.zeros(0, np.int64)
    _penalise_loop(np.zeros((1, 2), np.float32), none, none, none, none, np.zeros((0, 3)))


@numba.njit(**_OPTIONS)
def _penalise_loop(  # type: ignore[no-untyped-def]
    logits, rows, lengths, tokens, times, penalties
):  # pragma: no cover - compiled
    cell = 0
    for i in range(rows.shape[0]):
        repeated, often, once = penalties[i]
        for _ in range(lengths[i]):
            value = np.float64(logits[rows[i], tokens[cell]])
            value = value / repeated if value > 0.0 else value * repeated
            value -= often * times[cell]
            if times[cell] > 0:
                value -= once
            logits[rows[i], tokens[cell]] = min(max(value, -_LARGEST), _LARGEST)
            cell += 1

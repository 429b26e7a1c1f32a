"""What sequences' settings do to logits before temperature: bias, penalties, no end too early.

Only the cells that a setting names are read and written, each computed alone: other rows, and their
number, change nothing.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from server.engine.token_masks import forbid_masked
from server.scheduling.sequence import TokenSequence

_LARGEST = torch.finfo(torch.float32).max

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
    _add_biases(logits, [(i, one) for i, one in rows if one.sampling.logit_bias])
    _penalise_repeated(logits, [(i, one) for i, one in rows if one.sampling.counts_text])
    _penalise_counted(logits, [(i, one) for i, one in rows if one.sampling.counts_answer])
    _forbid_ends(logits, [(i, one) for i, one in rows if not one.may_end])
    return logits, forbid_masked(logits, sequences)


def _add_biases(logits: Tensor, rows: _Rows) -> None:
    if rows:
        cells = _Cells(logits, [(i, one.sampling.bias_tokens) for i, one in rows])
        cells.write(cells.read() + cells.numbers([one.sampling.bias_values for _, one in rows]))


def _penalise_repeated(logits: Tensor, rows: _Rows) -> None:
    if rows:
        cells = _Cells(logits, [(i, one.text_counts().tokens) for i, one in rows])
        penalties = cells.of_rows([one.sampling.repetition_penalty for _, one in rows])
        values = cells.read()
        cells.write(torch.where(values > 0, values / penalties, values * penalties))


def _penalise_counted(logits: Tensor, rows: _Rows) -> None:
    if rows:
        counts = [one.answer_counts() for _, one in rows]
        cells = _Cells(logits, [(i, one.tokens) for (i, _), one in zip(rows, counts, strict=True)])
        often = cells.of_rows([one.sampling.frequency_penalty for _, one in rows])
        once = cells.of_rows([one.sampling.presence_penalty for _, one in rows])
        cells.write(cells.read() - often * cells.numbers([one.counts for one in counts]) - once)


def _forbid_ends(logits: Tensor, rows: _Rows) -> None:
    if rows:
        _Cells(logits, [(i, one.sampling.stop_tokens) for i, one in rows]).forbid()


class _Cells:
    """Some cells of logits, row by row.

    Args:
        logits: float32 `[B, V]`, contiguous; the cells are changed in place.
        named: numbers of rows, each with the tokens that are meant, none of them twice.
    """

    def __init__(self, logits: Tensor, named: list[tuple[int, NDArray[np.int64]]]) -> None:
        self._flat = logits.view(-1)
        self._lengths = [len(tokens) for _, tokens in named]
        size = logits.shape[1]
        self._places = self.numbers([row * size + tokens for row, tokens in named])

    def read(self) -> Tensor:
        """Return the cells' values, float64 `[C]`."""
        return self._flat[self._places].double()

    def write(self, values: Tensor) -> None:
        """Write values `[C]`, cut to the finite numbers of float32."""
        self._flat[self._places] = values.clamp(-_LARGEST, _LARGEST).float()

    def forbid(self) -> None:
        """Write minus infinity."""
        self._flat[self._places] = -math.inf

    def numbers(self, of_rows: list[NDArray[Any]]) -> Tensor:
        """Return the cells' numbers `[C]` on the logits' device, in the dtype they have."""
        return torch.from_numpy(np.concatenate(of_rows)).to(self._flat.device)

    def of_rows(self, numbers: list[float]) -> Tensor:
        """Return one number for each cell, that of its row, as float64 `[C]`."""
        return self.numbers([np.repeat(np.array(numbers, dtype=np.float64), self._lengths)])

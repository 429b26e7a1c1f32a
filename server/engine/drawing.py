"""From logits to tokens on a CPU, by the loops of drawing_loops.py."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from server.engine import drawing_loops as loops


def finite_rows(logits: Tensor) -> list[bool]:
    """Return for every row of float32 logits `[B, V]` on the CPU whether all of it is finite."""
    finite = np.zeros(logits.shape[0], dtype=np.bool_)
    loops.find_finite(logits.contiguous().numpy(), finite)
    found: list[bool] = finite.tolist()
    return found


def draw_rows(logits: Tensor, settings: NDArray[np.float64]) -> list[int]:
    """Return a token for every row of logits; any token for a row with NaN or infinity in it.

    Args:
        logits: float32 `[B, V]` on the CPU; minus infinity forbids a token.
        settings: `[B, 6]`, as draw_settings.py has them.
    """
    tokens = np.zeros(logits.shape[0], dtype=np.int64)
    values = logits.contiguous().numpy()
    loops.draw_rows(values, values.view(np.int32), settings, _room(logits.shape[1]), tokens)
    drawn: list[int] = tokens.tolist()
    return drawn


def compile_draws() -> None:
    """Compile the loops, or read them from numba's cache, so that no request waits for it."""
    logits = torch.zeros(1, 2)
    finite_rows(logits)
    draw_rows(logits, np.array([[1.0, 1, 0.5, 0.5, 0.5, 0.5]]))


def _room(size: int) -> tuple[loops.Candidates, loops.Powers]:
    """Return memory for one row, which the next row uses again."""
    ids, values, weights = np.empty(size, np.int32), np.empty(size, np.float32), np.empty(size)
    candidates = loops.Candidates(ids, values, values.view(np.int32), weights, np.empty_like(ids))
    rounded, power = np.empty(loops.BLOCK), np.empty(loops.BLOCK)
    return candidates, loops.Powers(rounded, rounded.view(np.int64), power, power.view(np.int64))

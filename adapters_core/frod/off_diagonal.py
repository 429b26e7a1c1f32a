"""Seeded positions off the diagonal of a square matrix, one choice for each of several categories.

PEFT's FRoD lists the cells of an N x N matrix off its diagonal row by row and takes the first of
`torch.randperm(N N - N)`; one generator runs over the categories in the order of their names. Each
permutation takes N N - N - 1 words of the generator; here those are counted and passed over, and
only the positions that are asked for are computed.
"""

import math

import torch
from torch import Tensor

from adapters_core.errors import InvalidAdapter
from adapters_core.positions.seeded import LARGE, flat_positions


def num_positions(width: int, rate: float) -> int:
    """Return how many positions a matrix so wide has at this rate of its cells, 0..1.

    At least one if the rate is above zero and there is a cell off the diagonal.
    """
    cells = width * (width - 1)
    if rate == 0 or cells == 0:
        return 0
    return max(1, min(math.floor(width * width * rate), cells))


def num_words(width: int, rate: float) -> int:
    """Return how many words of the generator the positions of a matrix so wide use up."""
    return max(0, width * (width - 1) - 1) if num_positions(width, rate) else 0


def seeded_positions(seed: int, skip: int, n: int, width: int) -> Tensor:
    """Return n positions, int64 `[2, n]`, rows then columns.

    Args:
        seed: the generator's, of up to 64 bits; its lower 32 count, as in torch.
        skip: words of the generator that the categories before this one use up.
        n: how many, as `num_positions` says.
        width: of the matrix.

    Raises:
        InvalidAdapter: the matrix is so wide that torch draws in another way.
    """
    if n == 0:
        return torch.empty(2, 0, dtype=torch.int64)
    cells = width * (width - 1)
    if cells >= LARGE:
        raise InvalidAdapter(
            f"a layer {width} wide has {cells} positions to choose from, at most {LARGE - 1} are "
            "served without the positions in the file: save it with save_projection=True",
            "save_projection",
        )
    flat = flat_positions(seed % 2**32, n, cells, skip)
    rows, cols = flat // (width - 1), flat % (width - 1)
    return torch.stack([rows, cols + (cols >= rows)])


def checked_positions(indices: Tensor, width: int, key: str) -> Tensor:
    """Return a file's positions `[2, n]` as int64, every one inside and off the diagonal.

    Raises:
        InvalidAdapter: one is not; `param` is `key`.
    """
    positions = indices.long()
    if positions.numel() == 0:
        return positions
    for position in map(int, positions.aminmax()):
        if not 0 <= position < width:
            raise InvalidAdapter(f"{key}: position {position} is not in 0..{width - 1}", key)
    on_diagonal = positions[0] == positions[1]
    if bool(on_diagonal.any()):
        row = int(positions[0][on_diagonal][0])
        raise InvalidAdapter(f"{key}: the position {row}, {row} is on the diagonal", key)
    return positions

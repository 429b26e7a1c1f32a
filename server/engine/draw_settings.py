"""What decides the draw of each row's token, as numbers: one row of them a sequence."""

import numpy as np
from numpy.typing import NDArray

from server.scheduling.sequence import TokenSequence


def draw_settings(sequences: list[TokenSequence]) -> NDArray[np.float64]:
    """Return float64 `[B, 6]`: temperature, top_k, top_p, min_p, typical_p, random number.

    The number is 0 where none is drawn: at temperature 0.
    """
    rows = [_row(sequence) for sequence in sequences]
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def _row(sequence: TokenSequence) -> tuple[float, ...]:
    one = sequence.sampling
    point = sequence.random_number() if one.temperature else 0.0
    return one.temperature, one.top_k, one.top_p, one.min_p, one.typical_p, point

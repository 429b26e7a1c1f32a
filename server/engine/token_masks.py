"""What constraints forbid, as logits of minus infinity: one row, or all rows of a step at once."""

import math

import numpy as np
import torch
from torch import Tensor

from server.scheduling.sequence import TokenSequence

_WORD_BITS = 32


def masked(row: Tensor, sequence: TokenSequence) -> Tensor | None:
    """Return logits `[V]` with the tokens that the sequence's constraint forbids at -inf.

    The row itself is not changed. None where no token may follow.
    """
    bits = _allowed(sequence)
    if bits is None:
        return None
    allowed = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(row), bitorder="little")
    return row.masked_fill(torch.from_numpy(allowed) == 0, -math.inf)


def masked_together(logits: Tensor, sequences: list[TokenSequence]) -> tuple[Tensor, set[int]]:
    """Return logits `[B, V]` with what each row's constraint forbids at -inf, on their device.

    The masks travel as packed bits. Also returns the rows that no token may follow; those are left
    as they are. A copy, if any row has a constraint.
    """
    found = [(i, _allowed(one)) for i, one in enumerate(sequences) if one.constraint is not None]
    masks = {row: bits for row, bits in found if bits is not None}
    impossible = {row for row, bits in found if bits is None}
    if not masks:
        return logits, impossible
    words = torch.frombuffer(bytearray(b"".join(masks.values())), dtype=torch.int32)
    words = words.view(len(masks), -1).to(logits.device, non_blocking=True)
    rows = torch.tensor(list(masks), device=logits.device)
    forbidden = _unpacked(words)[:, : logits.shape[1]] == 0
    return logits.index_copy(0, rows, logits[rows].masked_fill(forbidden, -math.inf)), impossible


def _allowed(sequence: TokenSequence) -> bytearray | None:
    """Return the sequence's allowed tokens as packed bits; None where there are none."""
    assert sequence.constraint is not None
    return sequence.constraint.allowed(may_end=True)


def _unpacked(words: Tensor) -> Tensor:
    """Return the bits of int32 words `[B, W]`, from the lowest on, as int32 `[B, 32 W]`."""
    places = torch.arange(_WORD_BITS, dtype=torch.int32, device=words.device)
    return ((words[:, :, None] >> places) & 1).flatten(1)

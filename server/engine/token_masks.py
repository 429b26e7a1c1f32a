"""What constraints forbid, as logits of minus infinity."""

import math

import torch
from torch import Tensor

from adapters_core.layers.uploads import sent
from server.scheduling.sequence import TokenSequence

_WORD_BITS = 32


def forbid_masked(logits: Tensor, sequences: list[TokenSequence]) -> set[int]:
    """Put what each row's constraint forbids at -inf in logits `[B, V]`, on their device.

    The masks travel as packed bits. Returns the rows that no token may follow; those are left as
    they are.
    """
    found = [(i, _allowed(one)) for i, one in enumerate(sequences) if one.constraint is not None]
    masks = {row: bits for row, bits in found if bits is not None}
    if masks:
        words = torch.frombuffer(bytearray(b"".join(masks.values())), dtype=torch.int32)
        words = sent(words.view(len(masks), -1), logits.device)
        rows = sent(torch.tensor(list(masks)), logits.device)
        forbidden = _unpacked(words)[:, : logits.shape[1]] == 0
        logits.index_copy_(0, rows, logits[rows].masked_fill(forbidden, -math.inf))
    return {row for row, bits in found if bits is None}


def _allowed(sequence: TokenSequence) -> bytearray | None:
    """Return the sequence's allowed tokens as packed bits; None where there are none."""
    assert sequence.constraint is not None
    return sequence.constraint.allowed(sequence.may_end)


def _unpacked(words: Tensor) -> Tensor:
    """Return the bits of int32 words `[B, W]`, from the lowest on, as int32 `[B, 32 W]`."""
    places = torch.arange(_WORD_BITS, dtype=torch.int32, device=words.device)
    return ((words[:, :, None] >> places) & 1).flatten(1)

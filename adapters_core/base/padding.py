"""Texts of different lengths in one tensor: one way for serving, training and the start check."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def padded(
    texts: Sequence[Sequence[int]], pad_id: int, width: int | None = None
) -> dict[str, Tensor]:
    """Return texts as a model takes them, padded on the right.

    Args:
        texts: token ids.
        pad_id: the padding's token, as the model's config has it: some heads look for it.
        width: of all; None takes the longest one's.

    Returns:
        `input_ids` and `attention_mask`, int64 `[B, width]`.
    """
    width = width or max(map(len, texts))
    ids = torch.full((len(texts), width), pad_id)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def by_length(
    run: Callable[[Mapping[str, Tensor]], Tensor], inputs: Mapping[str, Tensor]
) -> Tensor:
    """Return `run`'s rows `[B, …]` for texts padded on the right, those of each length by itself.

    For models whose answer changes with the padding behind a text: none sees any.
    """
    lengths = inputs["attention_mask"].sum(1)
    rows: dict[int, Tensor] = {}
    for length in sorted(set(lengths.tolist())):
        mine = (lengths == length).nonzero()[:, 0]
        answers = run({name: given[mine, :length] for name, given in inputs.items()})
        rows |= dict(zip(mine.tolist(), answers, strict=True))
    return torch.stack([rows[row] for row in range(len(lengths))])

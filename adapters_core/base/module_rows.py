"""One call of a module that takes a row for each token of a step, such as a mixture's experts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class RowsNotKnown(RuntimeError):
    """A layer was given other rows than the step has: which adapter each has is not known."""


@dataclass(frozen=True)
class ModuleRows:
    """The arguments of one call: tensors `[T, ...]` or `[1, T, hidden]`, and anything else.

    Args:
        positional, named: of the call; what is no tensor is given to every group as it is.
    """

    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    @property
    def counts(self) -> set[int]:
        """Return how many rows the tensors have."""
        every = (*self.positional, *self.named.values())
        return {_count(one) for one in every if isinstance(one, Tensor)}

    def at(self, index: Tensor) -> "ModuleRows":
        """Return the arguments of some of the rows."""
        return ModuleRows(
            tuple(_at(one, index) for one in self.positional),
            {name: _at(one, index) for name, one in self.named.items()},
        )


def _is_batch_of_one(tensor: Tensor) -> bool:
    return tensor.ndim == 3 and tensor.shape[0] == 1


def _count(tensor: Tensor) -> int:
    if tensor.ndim == 0:
        return 0
    return tensor.shape[1] if _is_batch_of_one(tensor) else tensor.shape[0]


def _at(argument: Any, index: Tensor) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    return argument[:, index] if _is_batch_of_one(argument) else argument[index]


def has_rows(answer: Any, count: int) -> bool:
    """Return whether an answer is a tensor `[count, ...]`, or a tuple of such tensors."""
    if isinstance(answer, tuple):
        return bool(answer) and all(has_rows(one, count) for one in answer)
    return isinstance(answer, Tensor) and answer.ndim > 0 and len(answer) == count


def put_back(parts: Sequence[tuple[Tensor, Any]], count: int) -> Any:
    """Return a module's answer for all rows, given those for some.

    Args:
        parts: int64 rows, and the answer for them: together all rows.
        count: of all rows.

    Raises:
        RowsNotKnown: an answer has other rows than were asked for.
    """
    if not all(has_rows(part, len(index)) for index, part in parts):
        raise RowsNotKnown("a module answers with something else than one row for each it is given")
    _, first = parts[0]
    if isinstance(first, tuple):
        return tuple(
            put_back([(index, part[i]) for index, part in parts], count) for i in range(len(first))
        )
    y = first.new_empty(count, *first.shape[1:])
    for index, part in parts:
        y[index] = part
    return y


def put_in(mask: Tensor, own: Any, others: Any) -> Any:
    """Return a module's answer for all rows: `own` where the mask is set, else `others`.

    Args:
        mask: bool `[T, 1]`.
        own: an answer for all rows.
        others: another one.

    Raises:
        RowsNotKnown: an answer has other rows than were asked for.
    """
    if not has_rows(own, len(mask)):
        raise RowsNotKnown("a module answers with something else than one row for each it is given")
    if isinstance(own, tuple):
        return tuple(put_in(mask, *pair) for pair in zip(own, others, strict=True))
    return torch.where(mask.view(-1, *[1] * (own.ndim - 1)), own, others)

"""Rows of single tokens in place of the base's: PEFT's `trainable_token_indices`.

    E'[t] = row of t for each trained token t, E[t] for the others

The file holds the rows themselves (tuners/trainable_tokens/layer.py), so the update is their
difference to the base's: of an input embedding it is added to the rows of these tokens, of an
output layer x . (E'[t] - E[t]) is added to their logits. Packed: the tokens, then the rows.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adapters_core.contract.layer import Coefficients, Shape, TensorSpec
from adapters_core.contract.rows import PackedLayer, Rows
from adapters_core.format.replacement import Golden, Replacement

#: The tensor of a layer.
ROWS = "token_adapter.trainable_tokens_delta"


@dataclass(frozen=True)
class TokenRows(Replacement):
    """Args: tokens: those with a row of their own. looked_up: of an input embedding.

    shared: the key that holds the rows, where the layer is tied to the one that has them.
    """

    tokens: tuple[int, ...] = ()
    looked_up: bool = True
    shared: str | None = None

    name: ClassVar[str] = "token_rows"
    peft_fields: ClassVar[frozenset[str]] = frozenset({"trainable_token_indices"})

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        width = shape.out if self.looked_up else shape.in_
        return {ROWS: TensorSpec((len(self.tokens), width), shared=self.shared)}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        delta = torch.zeros(shape)
        if self.looked_up:
            delta[:, self.tokens] = self._difference(coefficients[ROWS], basis).T.cpu()
        else:
            delta[list(self.tokens)] = self._difference(coefficients[ROWS], basis).cpu()
        return delta

    def merge_many(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: Any,
    ) -> None:
        tokens = torch.tensor(self.tokens, device=golden[0].device)
        for layer, weight, merged in zip(layers, golden, out, strict=True):
            merged.copy_(weight)
            by_token = merged.T if self.looked_up else merged
            by_token[tokens] = layer[ROWS].to(merged.dtype)

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, len(self.tokens), self.looked_up)

    def packed_length(self, shape: Shape) -> int:
        return len(self.tokens) * (1 + (shape.out if self.looked_up else shape.in_))

    def pack(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        difference = self._difference(coefficients[ROWS], basis)
        tokens = torch.tensor(self.tokens, dtype=torch.float32, device=difference.device)
        return torch.cat([tokens, difference.reshape(-1)])

    def _difference(self, rows: Tensor, basis: Golden) -> Tensor:
        """Return what is added to the base's rows, float32 `[n, hidden]`."""
        weight = basis.weight.T if self.looked_up else basis.weight
        own = weight[list(self.tokens)]
        return rows.to(own.device, torch.float32) - own.float()

    def apply(self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: Any) -> Tensor:
        """Return the update of tokens x `[T]`, `[T, hidden]`, or of x `[T, hidden]`, `[T, out]`."""
        tokens = layer.rows()[rows.slots, : len(self.tokens)].long()  # [T, n]
        if self.looked_up:
            is_own = x[:, None] == tokens  # at most one of them
            number = is_own.int().argmax(dim=1, keepdim=True)
            return self._own_rows(layer, rows, number, shape.out) * is_own.any(dim=1, keepdim=True)
        numbers = range(len(self.tokens))
        own = (self._own_rows(layer, rows, number, shape.in_) for number in numbers)
        logits = torch.stack([(row * x.float()).sum(dim=1) for row in own], dim=1)
        return logits.new_zeros(len(x), shape.out).scatter_(1, tokens, logits)

    def _own_rows(self, layer: PackedLayer, rows: Rows, number: Tensor | int, width: int) -> Tensor:
        """Return the difference `[T, hidden]` of one token of each row's adapter."""
        start = layer.offset + len(self.tokens) + number * width
        cells = start + torch.arange(width, device=rows.slots.device)
        return layer.buffer[rows.slots[:, None], cells]

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        weight = basis.weight.T if self.looked_up else basis.weight
        return {ROWS: weight[list(self.tokens)].float().clone()}

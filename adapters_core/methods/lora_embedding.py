"""LoRA of an input embedding: a map from one-hot tokens, so A is looked up, not multiplied.

    update of token t = (alpha / r) * B A[:, t],      A [r, vocabulary], B [hidden, r]

The layout is PEFT's (tuners/lora/layer.py, Embedding). Packed, A is transposed: a token's r numbers
lie side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adapters_core.contract.kernel_group import BankPart
from adapters_core.contract.layer import Coefficients, Shape
from adapters_core.contract.method_registry import register_variant
from adapters_core.contract.rows import PackedLayer, Rows, padded_linear
from adapters_core.methods.lora import LoRA


@register_variant("embedding")
@dataclass(frozen=True)
class LoRAEmbedding(LoRA):
    """Args: as LoRA's."""

    factors: ClassVar[tuple[str, str]] = ("lora_embedding_A", "lora_embedding_B")
    #: Single numbers of a bank's buffer are looked up.
    may_be_half: ClassVar[bool] = False

    def analysis_key(self, shape: Shape) -> None:
        return None

    @classmethod
    def kernels(cls, parts: Sequence[BankPart]) -> None:
        return None

    def pack(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        a, b = self.factors
        up = self.scale * coefficients[b].float().T  # [r, hidden]
        return torch.cat([coefficients[a].float().T.reshape(-1), up.reshape(-1)])

    def apply(self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: Any) -> Tensor:
        """Return the update `[T, hidden]` of tokens x `[T]`, float32."""
        single = slice(0, rows.num_decode)
        parts = [self._single_rows(x[single], layer, rows.slots[single], shape)]
        for segment in rows.segments:
            packed = layer.rows()[segment.slot]
            down, up = packed[: self.r * shape.in_], packed[self.r * shape.in_ :]
            hidden = down.view(shape.in_, self.r)[x[segment.start : segment.stop]]
            parts.append(padded_linear(hidden, up.view(self.r, shape.out).T))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _single_rows(self, x: Tensor, layer: PackedLayer, slots: Tensor, shape: Shape) -> Tensor:
        """Return the updates of tokens of different adapters, without copying a whole A."""
        ranks = torch.arange(self.r, device=x.device)
        cells = layer.offset + x[:, None] * self.r + ranks
        hidden = layer.buffer[slots[:, None], cells]  # [T, r]
        start = layer.offset + self.r * shape.in_
        update = hidden.new_zeros(len(x), shape.out)
        for rank in range(self.r):  # in one order for every row, whatever stands beside it
            begin = start + rank * shape.out
            update.addcmul_(hidden[:, rank, None], layer.buffer[slots, begin : begin + shape.out])
        return update

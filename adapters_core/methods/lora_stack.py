"""LoRA of a stack of matrices, such as a mixture's experts: each matrix has factors of its own.

    delta_e = (alpha / r) * B_e A_e,      A [r * num, in] = A_0, A_1 ...;  B [out, r * num], whose
                                          column i * num + e is column i of B_e

The layout is PEFT's (tuners/lora/layer.py, ParamWrapper). Which matrices a row goes through is the
module's own choice, so there is no factored form: an adapter's rows go through merged copies.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from adapters_core.contract.layer import Coefficients, Shape, Stack, TensorSpec
from adapters_core.contract.merged_only import MergedOnly
from adapters_core.contract.method_registry import register_variant
from adapters_core.methods.lora import LoRA


@register_variant("stack")
@dataclass(frozen=True)
class LoRAStack(MergedOnly, LoRA):
    """Args: as LoRA's. num: of the matrices. transposed: whether each is stored `[in, out]`."""

    num: int = 1
    transposed: bool = False

    def config(self) -> dict[str, Any]:
        return {k: v for k, v in super().config().items() if k not in ("num", "transposed")}

    def of_stack(self, stack: Stack) -> Self:
        """Return the method of this parameter."""
        return replace(self, num=stack.num, transposed=stack.transposed)

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        a, b = self.factors
        rows, cols = shape.out // self.num, shape.in_
        out, in_ = (cols, rows) if self.transposed else (rows, cols)
        rank = self.r * self.num
        return {a: TensorSpec((rank, in_)), b: TensorSpec((out, rank))}

    def is_zero(self, coefficients: Coefficients) -> bool:
        down, up = self._factors(coefficients)
        return self.scale == 0 or not bool(torch.bmm(up.double(), down.double()).any())

    def delta(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        down, up = self._factors(coefficients)
        delta = torch.bmm(self.scale * up.float(), down.float())  # [num, out, in]
        return (delta.mT if self.transposed else delta).reshape(shape)

    def _factors(self, coefficients: Coefficients) -> tuple[Tensor, Tensor]:
        """Return A `[num, r, in]` and B `[num, out, r]`."""
        a, b = self.factors
        down, up = coefficients[a], coefficients[b]
        down = down.view(self.num, self.r, down.shape[1])
        return down, up.view(up.shape[0], self.r, self.num).permute(2, 0, 1)

"""A whole weight in place of the base's: PEFT's `modules_to_save` of an embedding or output layer.

delta = weight - golden
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adapters_core.contract.layer import Coefficients, Shape, TensorSpec
from adapters_core.contract.merged_only import MergedOnly
from adapters_core.format.replacement import Replacement

_WEIGHT = "weight"


@dataclass(frozen=True)
class WholeWeight(MergedOnly, Replacement):
    """Args: looked_up: whether the file holds it as rows to look up, `[in, out]`."""

    looked_up: bool = False

    name: ClassVar[str] = "whole_weight"
    peft_fields: ClassVar[frozenset[str]] = frozenset({"modules_to_save"})

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        rows, cols = (shape.in_, shape.out) if self.looked_up else shape
        return {_WEIGHT: TensorSpec((rows, cols))}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        golden = basis.weight.float()
        return self._own(coefficients).to(golden) - golden

    def merge_many(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: Any,
    ) -> None:
        for layer, merged in zip(layers, out, strict=True):
            merged.copy_(self._own(layer))

    def _own(self, coefficients: Coefficients) -> Tensor:
        weight = coefficients[_WEIGHT]
        return weight.T if self.looked_up else weight

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.looked_up)

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        weight = basis.weight.float()
        return {_WEIGHT: (weight.T if self.looked_up else weight).clone()}

"""Methods without a factored form: in either mode the rows of an adapter have merged weights."""

from typing import Any, ClassVar

from torch import Tensor

from adapters_core.contract.layer import Coefficients, Shape
from adapters_core.contract.method import Method
from adapters_core.contract.rows import PackedLayer, Rows


class MergedOnly(Method):
    """Gives a method the merged way alone: a bank holds nothing of its layers."""

    is_factored: ClassVar[bool] = False
    merge_many = Method.merge_many
    merge_parts = Method.merge_parts
    delta_many = Method.delta_many

    def is_zero(self, coefficients: Coefficients) -> bool:
        return False

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        return self.delta(coefficients, shape, basis).double()[rows, cols]

    def packed_length(self, shape: Shape) -> int:
        return 0

    def pack(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        raise NotImplementedError(f"{self.name} has no factored form")

    def apply(self, x: Any, layer: PackedLayer, rows: Rows, shape: Shape, basis: Any) -> Tensor:
        raise NotImplementedError(f"{self.name} has no factored form")

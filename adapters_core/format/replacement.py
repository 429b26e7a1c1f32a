"""What replaces values of the base beside any method, as fields of PEFT's configs say."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from adapters_core.contract.layer import Coefficients, Shape, Site
from adapters_core.contract.method import Method
from adapters_core.contract.peft_config import PeftConfig


class Golden:
    """The base's own weight `[out, in]`, a view: it takes no memory of its own."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight


class Replacement(Method):
    """The parts of the contract that are alike for whole weights and for rows of tokens."""

    peft_type: ClassVar[str] = ""
    needs_base: ClassVar[bool] = True

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        return cls()

    def to_peft(self) -> dict[str, Any]:
        return {}

    def is_zero(self, coefficients: Coefficients) -> bool:
        return False  # whether the values are the base's own is not known here

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        return self.delta(coefficients, shape, basis).double()[rows, cols]

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> Golden:
        assert site is not None
        return Golden(site.base.weight(site.path))

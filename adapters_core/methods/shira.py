"""SHiRA: a sparse update at positions that the file itself holds.

    delta[rows[k], cols[k]] += weight[k],      k < r (out + in)

Bhardwaj et al. 2024, arXiv:2406.13175, sections 3.1 and 3.2. `r` sets the number of weights to that
of a LoRA of this rank; the update's own rank is not bounded by it. Choices on which papers and
codes differ: the paper scales by alpha in inference, PEFT by a factor that no file holds and that
is 1 wherever an adapter is loaded; so it is here. The paper has five ways to choose the positions
and PEFT takes any mask; all of them are served alike, since PEFT saves the positions as int32 `[2,
n]`, rows first. A position that stands twice gets the sum, as in PEFT. PEFT refuses a layer with
fewer than r (out + in) cells; here such a layer has each of its cells once. A fresh adapter here
has random positions and zero weights.

Nothing is transformed: the dense update is one scatter, a merge changes the positions alone, a
batch is gathered, multiplied and scattered row by row (kernels/located.py). Positions are packed as
float32, which holds them exactly.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from adapters_core.contract.method import (
    Coefficients,
    Method,
    PackedLayer,
    Rows,
    Shape,
    TensorSpec,
)
from adapters_core.contract.method_registry import register
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.errors import InvalidAdapter
from adapters_core.kernels.located import EXACT_INTEGERS, located_rows
from adapters_core.kernels.merged_cells import all_cell_parts
from adapters_core.positions.seeded import flat_positions
from adapters_core.transforms.factored import Core, PlainLine, analysed, through_core

_WEIGHT, _INDICES = "shira_weight", "shira_indices"
#: With one position of so many cells or more, a dense sum is as fast as one at the positions.
_DENSE_PART = 8


@register
@dataclass(frozen=True)
class SHiRA(Method):
    """Args: r: the rank of the LoRA with as many numbers."""

    r: int = 32

    name: ClassVar[str] = "shira"
    peft_type: ClassVar[str] = "SHIRA"
    #: How the positions were chosen says nothing more: the file has them.
    peft_fields: ClassVar[frozenset[str]] = frozenset({"r", "mask_type", "random_seed"})
    #: The job's seed draws the positions.
    training_only: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "mask_type": ("random",),
        "random_seed": (None,),
    }

    def __post_init__(self) -> None:
        if self.r < 1:
            raise InvalidAdapter(f"r = {self.r}: at least 1", "r")

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        return cls(config.integer("r", 32))

    def to_peft(self) -> dict[str, Any]:
        return {"r": self.r, "mask_type": "random"}

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        n = self._count(shape)
        return {_WEIGHT: TensorSpec((n,)), _INDICES: TensorSpec((2, n), floating=False)}

    def check(self, coefficients: Coefficients, shape: Shape) -> None:
        if max(shape) > EXACT_INTEGERS:
            raise InvalidAdapter(f"a layer of {shape.out} x {shape.in_} is too wide", _INDICES)
        positions = coefficients[_INDICES].long()
        for side, index, size in zip(("row", "column"), positions, shape, strict=True):
            for position in map(int, index.aminmax()):
                if not 0 <= position < size:
                    raise InvalidAdapter(f"{side} {position} is not in 0..{size - 1}", _INDICES)

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        n = self._count(shape)
        seed = int(torch.randint(1 << 31, (), generator=generator))
        flat = flat_positions(seed, n, shape.out * shape.in_).sort().values
        indices = torch.stack([flat // shape.in_, flat % shape.in_]).int()
        return {_WEIGHT: torch.zeros(n), _INDICES: indices}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        weight = coefficients[_WEIGHT].float()
        rows, cols = coefficients[_INDICES].long()
        flat = weight.new_zeros(shape.out * shape.in_)
        return flat.index_add(0, rows * shape.in_ + cols, weight).view(shape.out, shape.in_)

    def training_apply(self, x: Tensor, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        rows, cols = trained[_INDICES].long()
        values = trained[_WEIGHT].float()
        z = analysed(x, PlainLine(shape.in_), values.dtype)
        return through_core(z, values, Core(PlainLine(shape.out), rows, cols)).to(x.dtype)

    def changed_cells(
        self, coefficients: Coefficients, shape: Shape, basis: Any
    ) -> tuple[Tensor, Tensor] | None:
        if _DENSE_PART * self._count(shape) > shape.out * shape.in_:
            return None
        weight, indices = coefficients[_WEIGHT].float(), coefficients[_INDICES].long()
        positions = indices[0] * shape.in_ + indices[1]
        if bool((positions[1:] > positions[:-1]).all()):  # as PEFT and `init` write them
            return positions, weight
        cells, position = torch.unique(positions, return_inverse=True)
        return cells, weight.new_zeros(cells.shape).index_add(0, position, weight)

    def merge_parts(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: Any,
    ) -> Sequence[Callable[[], None]] | None:
        for layer in layers:
            self.check(layer, shape)  # the compiled loop trusts the cells
        return all_cell_parts(
            (self.changed_cells(layer, shape, basis) for layer in layers), golden, out
        )

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        weight = coefficients[_WEIGHT].double()
        held_rows, held_cols = coefficients[_INDICES].long()
        # Every position finds the asked cell that it is, if any is.
        asked, which = torch.unique(rows * shape.in_ + cols, return_inverse=True)
        held = held_rows * shape.in_ + held_cols
        position = torch.searchsorted(asked, held).clamp(max=asked.numel() - 1)
        found = asked[position] == held
        sums = weight.new_zeros(asked.numel()).index_add(0, position[found], weight[found])
        return sums[which]

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.r)

    def packed_length(self, shape: Shape) -> int:
        return 3 * self._count(shape)

    def pack(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        self.check(coefficients, shape)  # the compiled loop trusts what is packed
        rows, cols = coefficients[_INDICES].float()
        return torch.cat([coefficients[_WEIGHT].float(), rows, cols])

    def apply(self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: Any) -> Tensor:
        return located_rows(x.float().contiguous(), layer, rows.slots, shape.out).to(x.dtype)

    def is_zero(self, coefficients: Coefficients) -> bool:
        return not bool(coefficients[_WEIGHT].any())

    def _count(self, shape: Shape) -> int:
        """Return how many weights a layer has."""
        return min(self.r * (shape.out + shape.in_), shape.out * shape.in_)

"""CLoRA: every layer is built from the same few low-rank spaces by small maps of its own.

    delta = scaling * sum_i Q_i A_i P_i,      i < K = num_spaces

P_i `[r, in]` and Q_i `[out, r]` stand once in the file for all layers of a width, the maps A_i
`[r, r]` (or their diagonals `[r]`) once for each layer. The update's rank reaches K r.

Liu, Zhu, Huang 2025, arXiv:2512.24603. THIS IS A READING: only the abstract could be had, and one
reader's published notes, which give the same sum with full r x r maps and the bound K r. What the
abstract leaves open was chosen here: which layers share (those of one width: P by `in`, Q by
`out`), the diagonal variant, the scale, and the start: P and Q normal with variances 1 / in and
1 / (K r), so that each keeps the variance of its input, maps zero. None of the paper's numbers is
claimed. Other methods are called CLoRA too; the file format is our own, as PEFT has none.

SADE, the paper's term against spaces that say the same, looks at no samples. Here it is

    sade_weight * sum over shared tensors, i < j:   |P_i P_j^T|^2 / (|P_i|^2 |P_j|^2)

in Frobenius norms, and the same of Q_i^T. For white x the numerator is the squared covariance of
what P_i and P_j extract, and Q_i^T Q_j = 0 keeps the spaces' outputs orthogonal whatever the maps.

Packed as a LoRA of rank K r, P and scaling Q blockdiag(A), and applied as one: a resident adapter
costs 4 K r (in + out) bytes a layer, where the file has them once a width.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.contract.method import (
    BankPart,
    Coefficients,
    KernelGroup,
    Method,
    PackedLayer,
    Rows,
    Shape,
    TensorSpec,
)
from adapters_core.contract.method_registry import register
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.errors import InvalidAdapter
from adapters_core.methods.lora import LoRA

_MAP, _DOWN, _UP = "clora_map", "clora_down", "clora_up"
#: Of all spaces together. A layer's packed copy has this many rows and columns at most.
MAX_RANK = 1024


@register
@dataclass(frozen=True)
class CLoRA(Method):
    """The sum over shared spaces.

    Args:
        r: the rank of one space.
        num_spaces: K, how many there are of each width.
        diagonal: whether a map is its diagonal `[r]`, not `[r, r]`.
        scaling: what the sum is multiplied by.
        sade_weight: of the diversity term in the training loss; serving does not read it.
    """

    r: int = 4
    num_spaces: int = 4
    diagonal: bool = False
    scaling: float = 1.0
    sade_weight: float = 0.1

    name: ClassVar[str] = "clora"
    peft_type: ClassVar[str] = "CLORA"
    may_be_half: ClassVar[bool] = True
    shared_prefixes: ClassVar[tuple[str, ...]] = (f"{_DOWN}.", f"{_UP}.")
    peft_fields: ClassVar[frozenset[str]] = frozenset(
        {"r", "num_spaces", "diagonal", "scaling", "sade_weight"}
    )

    def __post_init__(self) -> None:
        for name in ("r", "num_spaces"):
            value = getattr(self, name)
            if not 1 <= value <= MAX_RANK:
                raise InvalidAdapter(f"{name} = {value} is not in 1..{MAX_RANK}", name)
        if self.rank > MAX_RANK:
            message = f"r * num_spaces = {self.rank}: the ranks are at most {MAX_RANK} together"
            raise InvalidAdapter(message, "num_spaces")
        if not math.isfinite(self.scaling):
            raise InvalidAdapter(f"scaling = {self.scaling} is not a finite number", "scaling")
        if not 0 <= self.sade_weight < math.inf:
            message = f"sade_weight = {self.sade_weight} is not zero or a positive number"
            raise InvalidAdapter(message, "sade_weight")

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        return cls(
            config.integer("r", 4),
            config.integer("num_spaces", 4),
            config.flag("diagonal"),
            config.number("scaling", 1.0),
            config.number("sade_weight", 0.1),
        )

    def to_peft(self) -> dict[str, Any]:
        return self.config()

    @property
    def rank(self) -> int:
        """Return the rank of all spaces together, K r."""
        return self.r * self.num_spaces

    @property
    def _map_shape(self) -> tuple[int, ...]:
        return (self.num_spaces, self.r) if self.diagonal else (self.num_spaces, self.r, self.r)

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        if self.rank > max(shape):
            message = f"r * num_spaces = {self.rank} on a layer of {shape.out} x {shape.in_}"
            raise InvalidAdapter(f"{message}: at most {max(shape)}", "num_spaces")
        return {
            _MAP: TensorSpec(self._map_shape),
            _DOWN: TensorSpec((self.rank, shape.in_), shared=f"{_DOWN}.{shape.in_}"),
            _UP: TensorSpec((shape.out, self.rank), shared=f"{_UP}.{shape.out}"),
        }

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        down = torch.randn(self.rank, shape.in_, generator=generator) / math.sqrt(shape.in_)
        up = torch.randn(shape.out, self.rank, generator=generator) / math.sqrt(self.rank)
        return {_MAP: torch.zeros(self._map_shape), _DOWN: down, _UP: up}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        return self._mapped_up(coefficients, shape) @ coefficients[_DOWN].float()

    def training_apply(self, x: Tensor, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        hidden = F.linear(x, trained[_DOWN].to(x.dtype))
        return F.linear(hidden, self._mapped_up(trained, shape).to(x.dtype))

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        split = (-1, self.num_spaces, self.r)
        up = coefficients[_UP].double()[rows].view(split)  # [n, K, r]
        down = coefficients[_DOWN].double()[:, cols].T.reshape(split)
        maps = coefficients[_MAP].double()
        if self.diagonal:
            return self.scaling * (up * maps * down).sum(dim=(1, 2))
        each = up[:, :, :, None] * maps * down[:, :, None, :]  # [n, K, r, r]
        return self.scaling * each.sum(dim=(1, 2, 3))

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.r, self.num_spaces, self.diagonal, self.scaling)

    def packed_length(self, shape: Shape) -> int:
        return self.rank * (shape.in_ + shape.out)

    def pack(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        up = self._mapped_up(coefficients, shape).T  # [K r, out]
        return torch.cat([coefficients[_DOWN].float().reshape(-1), up.reshape(-1)])

    def apply(self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: Any) -> Tensor:
        return LoRA(self.rank).apply(x, layer, rows, shape, basis)

    def analysis_key(self, shape: Shape) -> Hashable:
        return (self.name, shape.in_)

    @classmethod
    def kernels(cls, parts: Sequence[BankPart]) -> KernelGroup | None:
        return LoRA.kernels(parts)

    def is_zero(self, coefficients: Coefficients) -> bool:
        return self.scaling == 0 or any(not bool(tensor.any()) for tensor in coefficients.values())

    def regulariser(self, layers: Mapping[str, Coefficients]) -> Tensor | None:
        if self.num_spaces == 1 or not self.sade_weight:
            return None
        shared = {id(layer[_DOWN]): layer[_DOWN] for layer in layers.values()}
        shared |= {id(layer[_UP]): layer[_UP].T for layer in layers.values()}
        terms = [overlap(t.reshape(self.num_spaces, self.r, -1)) for t in shared.values()]
        return self.sade_weight * torch.stack(terms).sum()

    def _mapped_up(self, coefficients: Coefficients, shape: Shape) -> Tensor:
        """Return `scaling Q blockdiag(A)`: `[out, K r]`."""
        up = coefficients[_UP].float().view(shape.out, self.num_spaces, self.r)
        maps = self.scaling * coefficients[_MAP].float()
        if self.diagonal:
            return (up * maps).view(shape.out, self.rank)
        return torch.einsum("oki,kij->okj", up, maps).reshape(shape.out, self.rank)


def overlap(spaces: Tensor) -> Tensor:
    """Return SADE's sum over the pairs i < j of spaces `[K, r, d]`: 0, if all are orthogonal.

    A pair with equal spans of orthonormal rows counts 1 / r; one with a zero space counts nothing.
    """
    num_spaces, r, _ = spaces.shape
    flat = spaces.float().reshape(num_spaces * r, -1)
    gram = (flat @ flat.T).view(num_spaces, r, num_spaces, r)
    between = gram.square().sum(dim=(1, 3))  # [K, K]: |P_i P_j^T|^2
    sizes = spaces.float().square().sum(dim=(1, 2)).clamp(min=1e-12)
    return (between / torch.outer(sizes, sizes)).triu(diagonal=1).sum()

"""DoRA: LoRA turns the rows of the base's weight, a vector sets their lengths.

    delta = diag(g) (W + s B A) - W,    g = m / ||W + s B A||,    s = alpha / r,

    A [r, in], B [out, r], m [out], W the base's weight, ||.|| the length of each row

Liu et al. 2024, arXiv:2402.09353 (ICML 2024); its text could not be had: the formula is PEFT's.
The paper's W is transposed, so its columns are rows here. In PEFT it is a LoRA with `use_dora`,
rslora and the patterns included; m starts at the rows' lengths in the base, so a fresh adapter
changes nothing. In training PEFT takes the length in g for a constant (the paper's section 4.3, it
says); so does `training_delta`, while `delta` has the whole derivative. A row that is zero stays
zero; PEFT divides by its length. The file does not say whether m alone was trained: an adapter
whose B (or A) is zero everywhere is refused as one without effect.

g is computed when an adapter is packed: A, s g B and g - 1. A batch needs W x beside x, one more
product of the base's size for all its rows. A merged adapter costs what any other does.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.contract.method import (
    Coefficients,
    Method,
    PackedLayer,
    Rows,
    Shape,
    Site,
    TensorSpec,
)
from adapters_core.contract.method_registry import register
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.rows import padded_linear
from adapters_core.methods.lora import LoRA

_A, _B, _MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"


class GoldenBasis(NamedTuple):
    """The base's own weight `[out, in]`, a view, and the dtype to compute in.

    No dataclass: the cache of bases counts the bytes of those, and this takes none.
    """

    weight: Tensor
    dtype: torch.dtype


@register
@dataclass(frozen=True)
class DoRA(Method):
    """Args: r, alpha, rslora, gaussian: of the LoRA that turns the rows."""

    r: int = 8
    alpha: float = 8.0
    rslora: bool = False
    gaussian: bool = False

    name: ClassVar[str] = "dora"
    peft_type: ClassVar[str] = "LORA"
    on_outputs: ClassVar[bool] = True
    pattern_fields: ClassVar[Mapping[str, str]] = LoRA.pattern_fields
    peft_fields: ClassVar[frozenset[str]] = LoRA.peft_fields | {"use_dora"}
    needs_base: ClassVar[bool] = True
    dropout_field: ClassVar[str | None] = LoRA.dropout_field
    training_only: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "init_lora_weights": LoRA.training_only["init_lora_weights"]
    }

    def __post_init__(self) -> None:
        self.lora  # noqa: B018  (checks the fields)

    @property
    def lora(self) -> LoRA:
        """Return the LoRA that turns the rows."""
        return LoRA(self.r, self.alpha, self.rslora, self.gaussian)

    @classmethod
    def reads(cls, config: PeftConfig) -> bool:
        return super().reads(config) and bool(config.raw.get("use_dora"))

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        config.flag("use_dora")
        lora = LoRA.from_peft(config, target, tensors)
        return cls(lora.r, lora.alpha, lora.rslora, lora.gaussian)

    def to_peft(self) -> dict[str, Any]:
        return self.lora.to_peft() | {"use_dora": True}

    def config(self) -> dict[str, Any]:
        return self.lora.config()

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        return self.lora.tensors(shape) | {_MAGNITUDE: TensorSpec((shape.out,))}

    def init(
        self, shape: Shape, generator: torch.Generator, basis: GoldenBasis | None = None
    ) -> dict[str, Tensor]:
        assert basis is not None, "the lengths are those of the base's rows"
        lengths = _lengths(basis.weight.float()).cpu()
        return self.lora.init(shape, generator) | {_MAGNITUDE: lengths}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: GoldenBasis) -> Tensor:
        turned = self._turned(coefficients, basis)
        growth = _growth(coefficients[_MAGNITUDE], turned)
        return (growth[:, None] * turned - basis.weight).float()

    def training_delta(self, trained: Coefficients, shape: Shape, basis: GoldenBasis) -> Tensor:
        turned = self._turned(trained, basis)
        growth = _growth(trained[_MAGNITUDE], turned.detach())
        return (growth[:, None] * turned - basis.weight).float()

    def training_apply(self, x: Tensor, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        with torch.no_grad():
            turned = self._turned(trained, basis)
        growth = _growth(trained[_MAGNITUDE], turned).to(x.dtype)
        plain = F.linear(x, basis.weight.to(x.dtype))
        return growth * (plain + self.lora.training_apply(x, trained, shape, None)) - plain

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        # A length needs its whole row: each row that is asked for is built once.
        asked, which = torch.unique(rows, return_inverse=True)
        weight = basis.weight[asked].double()
        turned = weight + self.lora.scale * (
            coefficients[_B].double()[asked] @ coefficients[_A].double()
        )
        growth = coefficients[_MAGNITUDE].double()[asked] / turned.square().sum(dim=1).sqrt()
        return (growth[:, None] * turned - weight)[which, cols]

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.r)

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> GoldenBasis:
        assert site is not None, "the golden weight is the layer's own"
        return GoldenBasis(site.base.weight(site.path).to(device), dtype)

    def packed_length(self, shape: Shape) -> int:
        return self.lora.packed_length(shape) + shape.out

    def pack(self, coefficients: Coefficients, shape: Shape, basis: GoldenBasis) -> Tensor:
        layer = {name: tensor.to(basis.weight.device) for name, tensor in coefficients.items()}
        growth = _growth(layer[_MAGNITUDE], self._turned(layer, basis))
        grown = {_A: layer[_A], _B: growth[:, None] * layer[_B]}
        return torch.cat([self.lora.pack(grown, shape, None), (growth - 1).float()])

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: GoldenBasis
    ) -> Tensor:
        length = self.lora.packed_length(shape)
        thin = PackedLayer(layer.buffer, layer.offset, length)
        turned = self.lora.apply(x.float(), thin, rows, shape, None)
        plain = padded_linear(x.to(basis.weight.dtype), basis.weight)
        return turned + layer.rows()[:, length:][rows.slots] * plain

    def is_zero(self, coefficients: Coefficients) -> bool:
        return self.lora.is_zero({name: coefficients[name] for name in (_A, _B)})

    def _turned(self, coefficients: Coefficients, basis: GoldenBasis) -> Tensor:
        """Return W + s B A in the basis's dtype."""
        up, down = (coefficients[name].to(basis.dtype) for name in (_B, _A))
        return basis.weight.to(basis.dtype) + self.lora.scale * (up @ down)


def _growth(magnitude: Tensor, turned: Tensor) -> Tensor:
    """Return g `[out]`; 1 for a row without length, which stays as it is."""
    lengths = _lengths(turned)
    has_length = lengths > 0
    return torch.where(
        has_length, magnitude.to(turned.dtype) / torch.where(has_length, lengths, 1), 1
    )


def _lengths(weight: Tensor) -> Tensor:
    """Return the length of each row; contiguous, so that the order of the sum is always one."""
    return torch.linalg.vector_norm(weight.contiguous(), dim=1)

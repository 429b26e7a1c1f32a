"""LoRA: the update as a product of two thin matrices.

    delta = (alpha / r) * B A,      A [r, in], B [out, r];  rsLoRA: alpha / sqrt(r)

Hu et al. 2021, arXiv:2106.09685, section 4.1; rank-stabilised scale: Kalajdzievski 2023,
arXiv:2312.03732. A is drawn, B starts at zero, so a fresh adapter changes nothing. Rank and alpha
may differ by layer (PEFT's `rank_pattern` and `alpha_pattern`, whose keys are regular expressions
over the module's path). The scale is folded into B when packed.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
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
from adapters_core.contract.peft_config import Pattern, PeftConfig
from adapters_core.contract.peft_fields import is_one_of
from adapters_core.contract.rows import padded_linear
from adapters_core.errors import InvalidAdapter
from adapters_core.gpu_kernels.merge_plans import can_merge
from adapters_core.kernels import lowrank_rows
from adapters_core.kernels.merged_product import MOST_RANKS, product_parts
from adapters_core.kernels.simd16 import LANES, can_stream

_A, _B = "lora_A.weight", "lora_B.weight"
#: Up to how many float32 roundings of its factors' norms a product counts as zero.
_ROUNDINGS = 4
#: `init_lora_weights` that leave the base as it is, and those that also changed its weights.
_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_INITS_OF_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@register
@dataclass(frozen=True)
class LoRA(Method):
    """Args: r: the rank. alpha: the scale's numerator. rslora: divide by sqrt(r), not r.

    gaussian: a fresh A is drawn from N(0, 1 / r^2), as PEFT's `init_lora_weights` names it.
    """

    r: int = 8
    alpha: float = 8.0
    rslora: bool = False
    gaussian: bool = False

    #: The tensors of a layer: A and B.
    factors: ClassVar[tuple[str, str]] = (_A, _B)

    name: ClassVar[str] = "lora"
    peft_type: ClassVar[str] = "LORA"
    on_outputs: ClassVar[bool] = True
    may_be_half: ClassVar[bool] = True
    pattern_fields: ClassVar[Mapping[str, str]] = {
        "r": "rank_pattern",
        "lora_alpha": "alpha_pattern",
    }
    peft_fields: ClassVar[frozenset[str]] = frozenset(
        {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"}
    )

    dropout_field: ClassVar[str | None] = "lora_dropout"
    training_only: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "init_lora_weights": (True, "gaussian"),
        "use_dora": (False,),
    }

    def __post_init__(self) -> None:
        if self.r < 1:
            raise InvalidAdapter(f"r = {self.r}: a rank is at least 1", "r")
        if not math.isfinite(self.alpha):
            raise InvalidAdapter(f"lora_alpha = {self.alpha} is not a finite number", "lora_alpha")

    @classmethod
    def reads(cls, config: PeftConfig) -> bool:
        return super().reads(config) and not config.raw.get("use_dora")  # methods/dora.py

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        _check_init(config)
        r = config.integer("r", 8, Pattern("rank_pattern"), target)
        alpha = config.number("lora_alpha", 8.0, Pattern("alpha_pattern"), target)
        gaussian = config.raw.get("init_lora_weights") == "gaussian"
        return cls(r, alpha, config.flag("use_rslora"), gaussian)

    def to_peft(self) -> dict[str, Any]:
        fields = {"r": self.r, "lora_alpha": self.alpha, "use_rslora": self.rslora}
        return fields | ({"init_lora_weights": "gaussian"} if self.gaussian else {})

    def config(self) -> dict[str, Any]:
        values = super().config()
        return values if self.gaussian else {k: v for k, v in values.items() if k != "gaussian"}

    @property
    def scale(self) -> float:
        """Return what B A is multiplied by."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        a, b = self.factors
        return {a: TensorSpec((self.r, shape.in_)), b: TensorSpec((shape.out, self.r))}

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        if self.gaussian:
            down = torch.randn(self.r, shape.in_, generator=generator) / self.r
        else:
            bound = 1 / math.sqrt(shape.in_)  # PEFT's kaiming_uniform_(a=sqrt(5))
            down = torch.empty(self.r, shape.in_).uniform_(-bound, bound, generator=generator)
        a, b = self.factors
        return {a: down, b: torch.zeros(shape.out, self.r)}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        a, b = self.factors
        return self.scale * (coefficients[b].float() @ coefficients[a].float())

    def training_apply(self, x: Tensor, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        hidden = F.linear(x, trained[_A].to(x.dtype))
        return F.linear(hidden, (self.scale * trained[_B]).to(x.dtype))

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        a, b = self.factors
        up, down = coefficients[b].double()[rows], coefficients[a].double()[:, cols]
        return self.scale * (up * down.T).sum(dim=1)

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.r)

    def packed_length(self, shape: Shape) -> int:
        return self.r * (shape.in_ + shape.out)

    def pack(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        up = self.scale * coefficients[_B].float().T  # [r, out]
        return torch.cat([coefficients[_A].float().reshape(-1), up.reshape(-1)])

    def apply(self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: Any) -> Tensor:
        single = slice(0, rows.num_decode)
        parts = [lowrank_rows(x[single], layer, rows.slots[single], shape)]
        for segment in rows.segments:
            packed = layer.of(segment.slot).to(x.dtype)
            down = packed[: self.r * shape.in_].view(self.r, shape.in_)
            up = packed[self.r * shape.in_ :].view(self.r, shape.out)
            hidden = padded_linear(x[segment.start : segment.stop], down)
            parts.append(padded_linear(hidden, up.T))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def analysis_key(self, shape: Shape) -> Hashable | None:
        return (self.name, shape.in_)

    @classmethod
    def kernels(cls, parts: Sequence[BankPart]) -> KernelGroup | None:
        from adapters_core.gpu_kernels.lowrank_group import Factors, LowRankGroup

        factors = [
            Factors(part.shape, part.length // sum(part.shape), part.offset) for part in parts
        ]
        return LowRankGroup(factors, parts[0].device)

    def delta_many(self, layers: Any, shape: Shape, basis: Any) -> Tensor:
        a, b = self.factors
        up = torch.stack([layer[b].float() for layer in layers])
        down = torch.stack([layer[a].float() for layer in layers])
        return torch.bmm(self.scale * up, down)

    def merge_many(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: Any,
    ) -> None:
        a, b = self.factors
        if can_merge(golden):
            from adapters_core.gpu_kernels.merging import merge_product

            for layer, weight, merged in zip(layers, golden, out, strict=True):
                merge_product(layer[b], layer[a], self.scale, weight, merged)
            return
        if any(weight.dtype != torch.float32 for weight in golden):
            super().merge_many(layers, golden, out, shape, basis)
            return
        for layer, weight, merged in zip(layers, golden, out, strict=True):
            up, down = layer[b].float(), layer[a].float()
            torch.addmm(weight, up, down, alpha=self.scale, out=merged)

    def merge_parts(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: Any,
    ) -> Sequence[Callable[[], None]] | None:
        in_lanes = shape.in_ % LANES == 0 and self.r <= MOST_RANKS
        if not in_lanes or not all(map(can_stream, golden, out)):
            return None
        a, b = self.factors
        parts: list[Callable[[], None]] = []
        for layer, weight, merged in zip(layers, golden, out, strict=True):
            up, down = self.scale * layer[b].float(), layer[a].float()
            parts += product_parts(up, down, weight, merged)
        return parts

    def is_zero(self, coefficients: Coefficients) -> bool:
        a, b = self.factors
        up, down = coefficients[b].double(), coefficients[a].double()
        # ||B A||^2 through two Gram matrices [r, r]: factors that are not zero may cancel each
        # other, as those of a fresh orthogonal initialisation do, up to their rounding.
        product = float(((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt())
        rounding = _ROUNDINGS * torch.finfo(torch.float32).eps * float(up.norm() * down.norm())
        return self.scale == 0 or product <= rounding


def _check_init(config: PeftConfig) -> None:
    """Refuse initialisations that also changed the base's weights: the file alone is not enough."""
    init = config.raw.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(_INITS_OF_BASE):
        raise InvalidAdapter(
            f"init_lora_weights = {init[:80]!r} changed the base's weights in training; save it "
            "with PEFT's path_initial_model_for_weight_conversion to get a plain LoRA",
            "init_lora_weights",
        )
    known = init.lower() if isinstance(init, str) else init
    if not is_one_of(known, _INITS):
        raise InvalidAdapter(
            f"init_lora_weights = {str(init)[:80]!r} is not known, and may have changed the base's "
            "weights; for a plain LoRA write true",
            "init_lora_weights",
        )

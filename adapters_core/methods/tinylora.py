"""TinyLoRA: a few numbers steer the largest singular directions of the base's weight.

    delta = B R A,   R = sum_i v[i] P[i],   A = sqrt(S) V^T [r, in], B = U sqrt(S) [out, r]

U S V^T is the truncated SVD of the base's weight, as in LoRA-XS (arXiv:2405.17604), which trains
all of R. Morris et al. 2026, arXiv:2602.04118: the paper could not be had; this is the method as
PEFT has it, and none of the paper's numbers are claimed. Choices, all PEFT's: sqrt(S) goes to both
factors; a layer smaller than r has the rank it can hold; P `[u, r, r]` is drawn from N(0, 1 / r) by
a CPU generator under `projection_seed` plus the layer's number among the adapted ones, in the
base's order; with `weight_tying` neighbouring layers share one v (0: none do, 1: all do). v starts
at zero.

A file always has A and B: their signs depend on the SVD that was used. They are what
adapters share here, told apart by their digest; only R is packed. P stands in the file too unless
`save_projection` is off; files that are written here without it carry the digest of the first
layer's. Over a base in half precision PEFT rounds P as it does the base: a file that leaves P out
does not say so, and here it is not rounded. LoRA-XS itself is no PEFT type and is not read.
"""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.contract.layer import Derived, Weights
from adapters_core.contract.method import (
    Coefficients,
    FileView,
    Method,
    PackedLayer,
    Rows,
    Shape,
    Site,
    TensorSpec,
)
from adapters_core.contract.method_registry import register
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.rows import pad_rows, padded_linear
from adapters_core.errors import InvalidAdapter
from adapters_core.positions.shared_matrices import check_drawn, matrices_digest, padded_rank
from adapters_core.transforms.singular import leading_singular

_DOWN, _UP, _PROJECTION, _VECTOR = "tinylora_A", "tinylora_B", "tinylora_P", "tinylora_v"
#: Numbers of one layer's P: 16 MiB.
MAX_NUMBERS = 1 << 22
#: The header's entry with the digest of the first layer's P, if the file leaves it out.
_METADATA = "projections"


@dataclass(frozen=True)
class FactorBasis:
    """What all TinyLoRA adapters with the same factors share on one layer.

    Args:
        down: `[R, in]`, A; rows from r on are zero.
        up: `[out, R]`, B; columns from r on are zero.
        dtype: of both.
    """

    down: Tensor
    up: Tensor
    dtype: torch.dtype


@register
@dataclass(frozen=True)
class TinyLoRA(Method):
    """Args: r: the rank. u: numbers in v. tying: 0..1, how far layers share v. seed: draws P.

    save: whether the file holds P.
    index, count: the layer's number among the adapted layers, in the base's order, and how many.
    factors: the digest of A and B in the file; None: those of the base's weight.
    """

    r: int = 2
    u: int = 64
    tying: float = 0.0
    seed: int = 42
    save: bool = True
    index: int = 0
    count: int = 1
    factors: str | None = None

    name: ClassVar[str] = "tinylora"
    peft_type: ClassVar[str] = "TINYLORA"
    peft_fields: ClassVar[frozenset[str]] = frozenset(
        ("r", "u", "weight_tying", "projection_seed", "save_projection")
    )
    dropout_field: ClassVar[str | None] = "tinylora_dropout"
    shared_prefixes: ClassVar[tuple[str, ...]] = (f"{_VECTOR}.",)
    needs_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.r < 1:
            raise InvalidAdapter(f"r = {self.r}: a rank is at least 1", "r")
        if self.u < 1:
            raise InvalidAdapter(f"u = {self.u}: at least 1 is needed", "u")
        if not 0 <= self.tying <= 1:
            raise InvalidAdapter(f"weight_tying = {self.tying} is not in 0..1", "weight_tying")
        if not 0 <= self.seed < 2**32:
            raise InvalidAdapter(
                f"projection_seed = {self.seed} is not in 0..2**32 - 1", "projection_seed"
            )

    @classmethod
    def of_file(cls, view: FileView) -> dict[str, Method]:
        shapes = {target: view.shapes[target] for target in view.tensors}
        methods = cls.from_peft(view.config, "", {}).of_layers(shapes)
        claimed = view.metadata.get(_METADATA)
        for target in list(methods)[:1]:
            first = methods[target]
            assert isinstance(first, cls)
            if claimed is not None and not first.save:
                check_drawn(claimed, [first._drawn(shapes[target])], "projection_seed", first.seed)
        return methods

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        return cls(
            config.integer("r", 2),
            config.integer("u", 64),
            config.number("weight_tying", 0.0),
            config.integer("projection_seed", 42),
            config.flag("save_projection", True),
        )

    @classmethod
    def with_values(
        cls, methods: Mapping[str, Method], layers: Mapping[str, Coefficients]
    ) -> Mapping[str, Method]:
        digests = {
            target: matrices_digest((layer[_DOWN], layer[_UP])) for target, layer in layers.items()
        }
        return {
            target: replace(method, factors=digests[target])
            for target, method in methods.items()
            if isinstance(method, cls)
        }

    def to_peft(self) -> dict[str, Any]:
        return {
            "r": self.r,
            "u": self.u,
            "weight_tying": self.tying,
            "projection_seed": self.seed,
            "save_projection": self.save,
        }

    def config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("r", "u", "tying", "seed", "save")}

    @classmethod
    def metadata_of(
        cls, methods: Mapping[str, Method], shapes: Mapping[str, Shape]
    ) -> dict[str, Any]:
        for target, method in methods.items():
            if isinstance(method, cls) and method.index == 0 and not method.save:
                return {_METADATA: matrices_digest([method._drawn(shapes[target])])}
        return {}

    def of_layers(self, shapes: Mapping[str, Shape]) -> dict[str, Method]:
        return {
            target: replace(self, index=index, count=len(shapes))
            for index, target in enumerate(shapes)
        }

    @property
    def group(self) -> int:
        """Return which v the layer has."""
        num_groups = max(1, round(self.count * (1.0 - self.tying)))
        size = max(1, self.count // num_groups)
        return min(self.index // size, num_groups - 1)

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        sizes = self._sizes(shape)
        r = sizes[1]
        specs = {
            _VECTOR: TensorSpec((self.u,), shared=f"{_VECTOR}.{self.group}"),
            _DOWN: TensorSpec((r, shape.in_), trained=False),
            _UP: TensorSpec((shape.out, r), trained=False),
        }
        if self.save:
            specs[_PROJECTION] = TensorSpec(sizes, trained=False)
        return specs

    def init(
        self, shape: Shape, generator: torch.Generator, basis: FactorBasis | None = None
    ) -> dict[str, Tensor]:
        assert basis is not None, "the factors are made from the base's weight"
        r = self._rank(shape)
        fresh = {
            _VECTOR: torch.zeros(self.u),
            _DOWN: basis.down[:r].float().cpu(),
            _UP: basis.up[:, :r].float().cpu(),
        }
        return fresh | ({_PROJECTION: self._drawn(shape)} if self.save else {})

    def delta(self, coefficients: Coefficients, shape: Shape, basis: FactorBasis) -> Tensor:
        r = self._rank(shape)
        core = self._core(coefficients, shape).to(basis.dtype)
        return (basis.up[:, :r] @ core @ basis.down[:r]).float()

    def training_apply(self, x: Tensor, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        r, core = self._rank(shape), self._core(trained, shape).to(x.dtype)
        hidden = F.linear(F.linear(x, basis.down[:r].to(x.dtype)), core)
        return F.linear(hidden, basis.up[:, :r].to(x.dtype))

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        held = self._held(coefficients, shape).double()
        core = (coefficients[_VECTOR].double()[:, None, None] * held).sum(dim=0)
        up, down = coefficients[_UP].double()[rows], coefficients[_DOWN].double()[:, cols]
        return ((up @ core) * down.T).sum(dim=1)

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self._rank(shape), self.factors)

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> FactorBasis:
        assert site is not None, "the factors are the layer's own"
        if self.factors is None:
            down, up = _factors(site, self._rank(shape))
        else:
            down, up = site.layer[_DOWN], site.layer[_UP]
        padding = padded_rank(len(down)) - len(down)
        down, up = F.pad(down, (0, 0, 0, padding)), F.pad(up, (0, padding))
        return FactorBasis(down.to(device, dtype), up.to(device, dtype), dtype)

    def packed_length(self, shape: Shape) -> int:
        return self._rank(shape) ** 2

    def pack(self, coefficients: Coefficients, shape: Shape, basis: FactorBasis) -> Tensor:
        return self._core(coefficients, shape).reshape(-1)

    def analyse(self, x: Tensor, shape: Shape, basis: FactorBasis) -> Tensor:
        """Return A x of the rows and of rows that pad them: `[T + ..., R]`."""
        return F.linear(pad_rows(x.to(basis.dtype)), basis.down)

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: FactorBasis
    ) -> Tensor:
        r = self._rank(shape)
        cores = layer.rows().view(-1, r, r)  # [slots, r, r]
        padding = (0, x.shape[1] - r)
        single = cores[rows.slots[: rows.num_decode]] * x[: rows.num_decode, None, :r]
        mixed = [F.pad(single.sum(dim=2), padding)]
        for segment in rows.segments:
            core = F.pad(cores[segment.slot], padding * 2).to(x.dtype)
            mixed.append(padded_linear(x[segment.start : segment.stop], core))
        return padded_linear(torch.cat(mixed), basis.up)

    def is_zero(self, coefficients: Coefficients) -> bool:
        return not bool(coefficients[_VECTOR].any())

    def _rank(self, shape: Shape) -> int:
        return min(self.r, *shape)

    def _core(self, coefficients: Coefficients, shape: Shape) -> Tensor:
        """Return R, float32 `[r, r]`, differentiable in v."""
        held = self._held(coefficients, shape).float()
        return torch.einsum("i,ijk->jk", coefficients[_VECTOR].float(), held)

    def _held(self, coefficients: Coefficients, shape: Shape) -> Tensor:
        """Return P `[u, r, r]`, the file's or drawn."""
        if self.save:
            return coefficients[_PROJECTION]
        return self._drawn(shape).to(coefficients[_VECTOR].device)

    def _drawn(self, shape: Shape) -> Tensor:
        """Return the P that the seed gives."""
        sizes = self._sizes(shape)
        generator = torch.Generator("cpu").manual_seed(self.seed + self.index)
        return torch.normal(0.0, 1.0 / math.sqrt(sizes[1]), sizes, generator=generator)

    def _sizes(self, shape: Shape) -> tuple[int, int, int]:
        """Return the shape of P."""
        r = self._rank(shape)
        most = MAX_NUMBERS // (r * r)
        if self.u > most:
            raise InvalidAdapter(f"u = {self.u}: at most {most} with a rank of {r}", "u")
        return self.u, r, r


def _factors(site: Site, r: int) -> tuple[Tensor, Tensor]:
    """Return A and B of the base's weight, made once for this base."""
    shape = site.base.shapes[site.path]
    work = shape.out * shape.in_ * min(shape)
    name, argument = f"{site.path}.tinylora-{r}", f"{r} {site.path}"
    kept = site.base.kept(Derived(name, (site.path,), decomposed, argument, work))
    return kept[_DOWN], kept[_UP]


def decomposed(base: Weights, argument: str, report: Callable[[float], None]) -> dict[str, Tensor]:
    """Return A and B of a layer, by name; `argument` is the rank and the layer's path."""
    r, path = argument.split(" ", 1)
    u, s, vh = leading_singular(base.weight(path).detach(), int(r))
    root = s.sqrt()
    return {_DOWN: (root[:, None] * vh).cpu(), _UP: (root * u).cpu()}

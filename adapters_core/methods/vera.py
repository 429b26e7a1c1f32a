"""VeRA: two vectors a layer scale a pair of random matrices that all layers share.

    delta = diag(b) B diag(d) A,      A [r, in], B [out, r], b [out], d [r]

Kopiczko et al. 2023, arXiv:2310.11454 (ICLR 2024); its text could not be had: the formula is
known from accounts of it and from PEFT, and no equation number stands here. Choices, all PEFT's:
one A and one B are drawn for the widest of the adapted layers, and a smaller layer uses A's first
`in` columns and B's first `out` rows; they come from one CPU generator under `projection_prng_key`,
A before B, Kaiming-uniform in their fan-in: within sqrt(6 / width of A) and sqrt(6 / r). b starts
at zero and d at `d_initial`, so a fresh adapter changes nothing.

PEFT saves A and B beside the vectors unless told not to (`save_projection`), since nothing promises
that a seed draws the same numbers everywhere. Files that are written here leave them out and carry
their digest, which is held against what is drawn when the file is read. Saved matrices that are
those of their seed are not kept: such an adapter shares its bank with those that save none. Over a
base in half precision PEFT rounds A and B as it does the base: saved they are taken as they are; a
file that leaves them out does not say so, and here they are not rounded.

For a batch, A x is taken once for all layers that see the same rows; each row is then multiplied by
its slot's d, by B, and by its slot's b.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.contract.method import (
    BankPart,
    Coefficients,
    FileView,
    KernelGroup,
    Method,
    PackedLayer,
    Rows,
    Shape,
    Site,
    TensorSpec,
)
from adapters_core.contract.method_registry import register
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.rows import pad_rows
from adapters_core.errors import InvalidAdapter
from adapters_core.positions.shared_matrices import check_drawn, matrices_digest, padded_rank

_SCALE_OUT, _SCALE_RANK = "vera_lambda_b", "vera_lambda_d"
_DOWN, _UP = "vera_A", "vera_B"
#: Float32 numbers that both matrices may have together: 256 MiB.
MAX_NUMBERS = 1 << 26
#: The header's entry with the digest of matrices that the file leaves out.
_METADATA = "projections"


@dataclass(frozen=True)
class Projections:
    """A file's A `[r, widest in]` and B `[widest out, r]`, float32; equal if their digests are."""

    digest: str
    down: Tensor = field(compare=False, repr=False)
    up: Tensor = field(compare=False, repr=False)


@dataclass(frozen=True)
class ProjectionBasis:
    """What all VeRA adapters with the same matrices share on layers of one shape.

    Args:
        down: `[R, in]`, A's columns for the layer; rows from r on are zero.
        up: `[out, R]`, B's rows for the layer; columns from r on are zero.
        dtype: of both.
    """

    down: Tensor
    up: Tensor
    dtype: torch.dtype


@register
@dataclass(frozen=True)
class VeRA(Method):
    """Args: r: the rank. seed: draws A and B. initial: of d. save: whether the file holds A and B.

    widest: the largest out and in of the adapter's layers; None: the layer at hand is the only one.
    projections: the file's A and B, where they are not those of the seed.
    """

    r: int = 256
    seed: int = 0
    initial: float = 0.1
    save: bool = False
    widest: Shape | None = None
    projections: Projections | None = None

    name: ClassVar[str] = "vera"
    peft_type: ClassVar[str] = "VERA"
    peft_fields: ClassVar[frozenset[str]] = frozenset(
        {"r", "projection_prng_key", "save_projection", "d_initial"}
    )
    dropout_field: ClassVar[str | None] = "vera_dropout"
    shared_prefixes: ClassVar[tuple[str, ...]] = (_DOWN, _UP)

    def __post_init__(self) -> None:
        if self.r < 1:
            raise InvalidAdapter(f"r = {self.r}: a rank is at least 1", "r")
        most = MAX_NUMBERS // sum(self.widest or (1, 1))
        if self.r > most:
            raise InvalidAdapter(f"r = {self.r}: at most {most} for layers of these widths", "r")
        if not 0 <= self.seed < 2**32:
            raise InvalidAdapter(
                f"projection_prng_key = {self.seed} is not in 0..2**32 - 1", "projection_prng_key"
            )
        if not math.isfinite(self.initial):
            raise InvalidAdapter(f"d_initial = {self.initial} is not a finite number", "d_initial")

    @classmethod
    def of_file(cls, view: FileView) -> dict[str, Method]:
        shapes = {target: view.shapes[target] for target in view.tensors}
        methods = cls.from_peft(view.config, "", {}).of_layers(shapes)
        # The reader refuses vectors of another length than the config's; nothing is drawn for them.
        ranks = {tensors.get(_SCALE_RANK) for tensors in view.tensors.values()}
        for target in list(methods)[:1]:
            method, claimed = methods[target], view.metadata.get(_METADATA)
            assert isinstance(method, cls)
            if claimed is not None and not method.save and ranks == {(method.r,)}:
                drawn = method._matrices(shapes[target])
                check_drawn(claimed, drawn, "projection_prng_key", method.seed)
        return methods

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        return cls(
            config.integer("r", 256),
            config.integer("projection_prng_key", 0),
            config.number("d_initial", 0.1),
            config.flag("save_projection", True),
        )

    @classmethod
    def with_values(
        cls, methods: Mapping[str, Method], layers: Mapping[str, Coefficients]
    ) -> Mapping[str, Method]:
        target, method = next(iter(methods.items()), ("", None))
        if not isinstance(method, cls) or not method.save or method.widest is None:
            return methods
        down, up = (layers[target][name].float() for name in (_DOWN, _UP))
        drawn_down, drawn_up = method._drawn(method.widest)
        if torch.equal(down, drawn_down) and torch.equal(up, drawn_up):
            return methods
        saved = Projections(matrices_digest((down, up)), down, up)
        return dict.fromkeys(methods, replace(method, projections=saved))

    def to_peft(self) -> dict[str, Any]:
        return {
            "r": self.r,
            "projection_prng_key": self.seed,
            "d_initial": self.initial,
            "save_projection": self.save,
        }

    def config(self) -> dict[str, Any]:
        names = ("r", "seed", "initial", "save")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def metadata_of(
        cls, methods: Mapping[str, Method], shapes: Mapping[str, Shape]
    ) -> dict[str, Any]:
        target, method = next(iter(methods.items()))
        assert isinstance(method, cls)
        if method.save:
            return {}
        return {_METADATA: matrices_digest(method._matrices(shapes[target]))}

    def of_layers(self, shapes: Mapping[str, Shape]) -> dict[str, Method]:
        if not shapes:
            return {}
        widest = Shape(*(max(sizes) for sizes in zip(*shapes.values(), strict=True)))
        method: Method = replace(self, widest=widest)
        return dict.fromkeys(shapes, method)

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        specs = {_SCALE_OUT: TensorSpec((shape.out,)), _SCALE_RANK: TensorSpec((self.r,))}
        if self.save:
            wide = self.widest or shape
            specs[_DOWN] = TensorSpec((self.r, wide.in_), trained=False, shared=_DOWN)
            specs[_UP] = TensorSpec((wide.out, self.r), trained=False, shared=_UP)
        return specs

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        scales = {
            _SCALE_OUT: torch.zeros(shape.out),
            _SCALE_RANK: torch.full((self.r,), self.initial),
        }
        if not self.save:
            return scales
        return scales | dict(zip((_DOWN, _UP), self._matrices(shape), strict=True))

    def delta(self, coefficients: Coefficients, shape: Shape, basis: ProjectionBasis) -> Tensor:
        up = coefficients[_SCALE_OUT].to(basis.dtype)[:, None] * basis.up[:, : self.r]
        down = coefficients[_SCALE_RANK].to(basis.dtype)[:, None] * basis.down[: self.r]
        return (up @ down).float()

    def training_apply(
        self, x: Tensor, trained: Coefficients, shape: Shape, basis: ProjectionBasis
    ) -> Tensor:
        hidden = F.linear(x, basis.down[: self.r].to(x.dtype)) * trained[_SCALE_RANK].to(x.dtype)
        wide = F.linear(hidden, basis.up[:, : self.r].to(x.dtype))
        return wide * trained[_SCALE_OUT].to(x.dtype)

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        down, up = (matrix.double() for matrix in self._matrices(shape))
        scales = coefficients[_SCALE_RANK].double()
        sums = (up[rows] * scales * down[:, cols].T).sum(dim=1)
        return coefficients[_SCALE_OUT].double()[rows] * sums

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.r, self._source(shape))

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> ProjectionBasis:
        down, up = self._matrices(shape)
        # Copies, also without padding: a slice would keep the whole matrix in memory.
        down = torch.cat([down[:, : shape.in_], down.new_zeros(self._padding, shape.in_)])
        up = torch.cat([up[: shape.out], up.new_zeros(shape.out, self._padding)], dim=1)
        return ProjectionBasis(down.to(device, dtype), up.to(device, dtype), dtype)

    def packed_length(self, shape: Shape) -> int:
        return shape.out + padded_rank(self.r)

    def pack(self, coefficients: Coefficients, shape: Shape, basis: ProjectionBasis) -> Tensor:
        scales = coefficients[_SCALE_RANK].float()
        padded = F.pad(scales, (0, self._padding))
        return torch.cat([coefficients[_SCALE_OUT].float(), padded])

    def analysis_key(self, shape: Shape) -> Hashable:
        return (self.name, self.r, self._source(shape), shape.in_)

    def analyse(self, x: Tensor, shape: Shape, basis: ProjectionBasis) -> Tensor:
        """Return A x of the rows and of rows that pad them: `[T + ..., R]`."""
        return F.linear(pad_rows(x.to(basis.dtype)), basis.down)

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: ProjectionBasis
    ) -> Tensor:
        packed = layer.rows()[rows.slots]  # [T, out + R]
        hidden = x * pad_rows(packed[:, shape.out :])
        return F.linear(hidden, basis.up)[: len(packed)] * packed[:, : shape.out]

    @classmethod
    def kernels(cls, parts: Sequence[BankPart]) -> KernelGroup | None:
        bases: list[ProjectionBasis] = [part.basis for part in parts]
        if any(basis.dtype != torch.float32 for basis in bases):
            return None
        from adapters_core.gpu_kernels.gathered_group import Stretched, StretchedGroup

        linears = [Stretched(part.basis.up, part.offset) for part in parts]
        return StretchedGroup(bases[0].down, linears)

    def is_zero(self, coefficients: Coefficients) -> bool:
        return not all(bool(coefficients[name].any()) for name in (_SCALE_OUT, _SCALE_RANK))

    @property
    def _padding(self) -> int:
        return padded_rank(self.r) - self.r

    def _source(self, shape: Shape) -> Hashable:
        """Return what the matrices are made from: seed and size, or the file."""
        if self.projections is not None:
            return self.projections.digest
        return (self.seed, self.widest or shape)

    def _matrices(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return A and B for the widest layer, drawn or the file's own."""
        if self.projections is not None:
            return self.projections.down, self.projections.up
        return self._drawn(self.widest or shape)

    def _drawn(self, wide: Shape) -> tuple[Tensor, Tensor]:
        """Return what the seed gives: A `[r, in]`, B `[out, r]`."""
        generator = torch.Generator("cpu").manual_seed(self.seed)
        down, up = torch.empty(self.r, wide.in_), torch.empty(wide.out, self.r)
        for matrix in (down, up):
            bound = math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(matrix.shape[1]))
            matrix.uniform_(-bound, bound, generator=generator)
        return down, up

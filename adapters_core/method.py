"""The contract of an adapter method: the one page its author reads.

A method is a frozen dataclass of hyper-parameters with pure functions. `delta` is its meaning;
everything else is a faster way to the same numbers and is tested against it. Merging, devices,
files and module replacement live outside, once for all methods.

A new method is one file under `methods/`, one import line there, one test of its formula on a
4x6 matrix and one row in docs/methods.md. The contract test finds it by its registration.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from adapters_core.errors import UnknownMethod

if TYPE_CHECKING:
    from adapters_core.peft_config import PeftConfig

Coefficients = Mapping[str, Tensor]


class Shape(NamedTuple):
    """The shape of a linear's weight as a map: `[out, in_]`, whatever the module's own layout."""

    out: int
    in_: int


@dataclass(frozen=True)
class TensorSpec:
    """What a coefficient file holds under one name for one layer; `floating` if it is trained."""

    shape: tuple[int, ...]
    floating: bool = True


@dataclass(frozen=True)
class Segment:
    """Rows `start..stop` of one prompt; all of them use the bank's `slot`."""

    start: int
    stop: int
    slot: int


@dataclass(frozen=True)
class Rows:
    """Which bank slot each row of a batch uses.

    Args:
        slots: int64 `[T]`, one slot per row.
        num_decode: rows `0..num_decode` are single tokens, each of another sequence.
        segments: the rest, prompt by prompt, without gaps.
    """

    slots: Tensor
    num_decode: int
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class PackedLayer:
    """One layer's columns `offset..offset + length` of a bank's `buffer` `[slots, width]`."""

    buffer: Tensor
    offset: int
    length: int

    def rows(self) -> Tensor:
        """Return the layer's packed coefficients as a view `[slots, length]`."""
        return self.buffer[:, self.offset : self.offset + self.length]


@dataclass(frozen=True)
class Method(ABC):
    """Hyper-parameters of one layer's update, and the pure functions that give it meaning."""

    name: ClassVar[str]
    #: The value of `peft_type` in an adapter_config.json.
    peft_type: ClassVar[str]
    #: PEFT config fields this method reads itself; every other field must be off (see peft_config).
    peft_fields: ClassVar[frozenset[str]]

    @classmethod
    @abstractmethod
    def from_peft(cls, config: "PeftConfig", target: str, tensors: Mapping[str, Any]) -> Self:
        """Return the method of the layer `target` as its adapter_config.json describes it.

        Args:
            config: the checked config.
            target: the module's path in the base.
            tensors: name -> shape of this layer's tensors in the file.

        Raises:
            InvalidAdapter: a hyper-parameter is out of range; `param` names it.
        """

    @abstractmethod
    def to_peft(self) -> dict[str, Any]:
        """Return the hyper-parameters as PEFT's config fields; `from_peft` reads them back."""

    @abstractmethod
    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        """Return what the file holds for a layer of this shape; all validation follows from it."""

    @abstractmethod
    def init(self, shape: Shape, generator: torch.Generator) -> dict[str, Tensor]:
        """Return fresh float32 coefficients whose delta is zero, ready for training."""

    @abstractmethod
    def delta(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        """Return the dense update `[out, in_]`, float32, differentiable in the coefficients."""

    @abstractmethod
    def cells(self, coefficients: Coefficients, shape: Shape, rows: Tensor, cols: Tensor) -> Tensor:
        """Return `delta[rows, cols]` in float64 by the defining sum, without any fast transform.

        Slow and independent of every library transform: the canary and the tests hold the fast
        ways against it.
        """

    @abstractmethod
    def signature(self, shape: Shape) -> Hashable:
        """Return what two adapters must have in common to share a basis and a bank."""

    @abstractmethod
    def packed_length(self, shape: Shape) -> int:
        """Return how many float32 numbers `pack` gives for a layer of this shape."""

    @abstractmethod
    def pack(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        """Return the coefficients as `apply` reads them: float32 `[packed_length]`, scaled."""

    @abstractmethod
    def apply(self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: Any) -> Tensor:
        """Return `x[t] @ delta(slots[t]).T` for every row t: `[T, out]` in x's dtype.

        A row's bits must not depend on which other rows stand in the batch.
        """

    def fitted(self, shape: Shape) -> Self:
        """Return this method cut down to what a layer of this shape can hold."""
        return self

    def basis(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
        """Return what all adapters of this signature share on `device`; computed once and cached.

        Args:
            shape: the layer's shape.
            device: where the batch lives.
            dtype: float32, or float64 where the canary found float32 transforms wrong.
        """
        return None

    def delta_many(self, layers: Sequence[Coefficients], shape: Shape, basis: Any) -> Tensor:
        """Return the deltas of several layers of one shape and signature: `[L, out, in_]`."""
        return torch.stack([self.delta(layer, shape, basis) for layer in layers])

    def merged_many(
        self, layers: Sequence[Coefficients], golden: Sequence[Tensor], shape: Shape, basis: Any
    ) -> list[Tensor]:
        """Return `golden + delta` of several layers, each `[out, in_]` in its golden's dtype.

        The sum is taken in float32 and rounded once; golden weights are not changed.
        """
        deltas = self.delta_many(layers, shape, basis)
        return [
            delta.add_(weight).to(weight.dtype)
            for delta, weight in zip(deltas, golden, strict=True)
        ]

    def check(self, coefficients: Coefficients, shape: Shape) -> None:
        """Refuse values that fit `tensors(shape)` but not the layer, such as places outside it.

        The reader calls it once a layer, before anything is computed from the coefficients.

        Raises:
            InvalidAdapter: `param` is the tensor's name as in `tensors`.
        """
        return  # any finite number is a coefficient

    def is_zero(self, coefficients: Coefficients) -> bool:
        """Return whether the layer's delta is zero everywhere."""
        return not any(bool(tensor.any()) for tensor in coefficients.values())

    def places_digest(self, shape: Shape) -> str | None:
        """Return a digest of the seeded places, for the file's header; None without any."""
        return None

    def config(self) -> dict[str, Any]:
        """Return the hyper-parameters as JSON values."""
        return asdict(self)


@dataclass
class _Table:
    """The registered methods by name; the only module-level state of this package."""

    methods: dict[str, type[Method]] = field(default_factory=dict)


_TABLE = _Table()


def register(method: type[Method]) -> type[Method]:
    """Enter a method into the table; used as a class decorator.

    Raises:
        ValueError: its name or PEFT type is taken.
    """
    for other in _TABLE.methods.values():
        if method.name == other.name or method.peft_type == other.peft_type:
            raise ValueError(f"{method.__name__} and {other.__name__} share a name or PEFT type")
    _TABLE.methods[method.name] = method
    return method


def registered() -> dict[str, type[Method]]:
    """Return the methods of this build by name."""
    return dict(_TABLE.methods)


def by_peft_type(peft_type: str) -> type[Method]:
    """Return the method that reads adapter configs of this `peft_type`.

    Raises:
        UnknownMethod: none does; the message lists those that are known.
    """
    for method in _TABLE.methods.values():
        if method.peft_type == peft_type.upper():
            return method
    known = ", ".join(sorted(m.peft_type for m in _TABLE.methods.values()))
    raise UnknownMethod(
        f"peft_type {peft_type!r} is not supported; supported: {known}", "peft_type"
    )

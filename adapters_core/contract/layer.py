"""What a method is told of a layer: its shape, its tensors, where it stands, what the file says."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from adapters_core.contract.peft_config import PeftConfig

T = TypeVar("T")
#: The tensors of one layer by name, those that it shares with other layers among them.
Coefficients = Mapping[str, Tensor]


class Shape(NamedTuple):
    """The shape of a linear's weight as a map: `[out, in_]`, whatever the module's own layout."""

    out: int
    in_: int


@dataclass(frozen=True)
class Stack:
    """The matrices of one parameter, such as those of a mixture's experts.

    Args:
        num: how many matrices.
        out, in_: of each as a map.
        transposed: whether the parameter is `[num, in, out]`, not `[num, out, in]`.
    """

    num: int
    out: int
    in_: int
    transposed: bool = False

    @property
    def shape(self) -> Shape:
        """Return the shape of the parameter with its matrices one below the other."""
        rows, cols = (self.in_, self.out) if self.transposed else (self.out, self.in_)
        return Shape(self.num * rows, cols)


@dataclass(frozen=True)
class TensorSpec:
    """What a coefficient file holds under one name for one layer.

    Args:
        shape: of the tensor.
        floating: whether it holds numbers, not positions.
        trained: whether training moves them.
        shared: the key after `base_model.` if the file holds it once for several layers; these
            then have one and the same tensor among their coefficients.
        role: which of a job's learning rates moves it: that of coefficients or of positions.
        rate: what this learning rate is multiplied by.
    """

    shape: tuple[int, ...]
    floating: bool = True
    trained: bool = True
    shared: str | None = None
    role: Literal["coefficients", "positions"] = "coefficients"
    rate: float = 1.0


@dataclass(frozen=True)
class Derived:
    """Tensors that are computed from a base's weights, once for a base; long work on a wide one.

    Args:
        name: letters, digits, `_`, `-` and `.`; says all that they depend on beside the weights.
        paths: of the weights that they are made from.
        make: a function of a module, which another process can import too: weights, `argument` and
            a function that is told the share of the work that is done, 0..1; returns float32
            tensors on the CPU by name.
        argument: what `make` is told.
        work: multiplications, about.
    """

    name: str
    paths: tuple[str, ...]
    make: "Callable[[Weights, str, Callable[[float], None]], dict[str, Tensor]]"
    argument: str
    work: int


class Weights(Protocol):
    """The resident base's weights, for methods whose basis is made from them."""

    @property
    def fingerprint(self) -> str:
        """Return the base's fingerprint."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Return path -> shape of every linear that an adapter may change, in the base's order."""

    def weight(self, path: str) -> Tensor:
        """Return the golden weight `[out, in]` as a view."""

    def kept(self, derived: Derived) -> Mapping[str, Tensor]:
        """Return tensors by name, computed once for these weights and then kept on disk.

        Raises:
            BasisPending: they are being computed beside this process, which goes on meanwhile.
        """

    def kept_before(self, name: str) -> Tensor | None:
        """Return the one tensor that an earlier version kept under a name, if it is there."""

    def held(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` gives, in memory once for this base while it is referenced."""


@dataclass(frozen=True)
class Site:
    """Where a basis is needed.

    Args:
        path: the layer's path in the base.
        base: the base's weights.
        layer: the coefficients of an adapter that needs it: what they share may be in its file.
    """

    path: str
    base: Weights
    layer: Coefficients


@dataclass(frozen=True)
class FileView:
    """What a method may know of a file before its tensors are read.

    Args:
        config: the checked adapter_config.json.
        shapes: path -> shape of every linear of the base, in its order.
        tensors: target -> name -> shape of its tensors in the file, in the base's order.
        shared: key after `base_model.` -> shape of what the file holds once for several layers.
        metadata: what our own files carry in their header; empty for PEFT's.
    """

    config: "PeftConfig"
    shapes: Mapping[str, Shape]
    tensors: Mapping[str, Mapping[str, tuple[int, ...]]]
    shared: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, Any]

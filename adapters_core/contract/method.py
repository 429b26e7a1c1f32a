"""The contract of an adapter method: the one page its author reads.

A method is a frozen dataclass of hyper-parameters with pure functions. `delta` is its meaning;
everything else is a faster way to the same numbers and is tested against it. Merging, devices,
files and module replacement live outside, once for all methods.

A new method is one file under `methods/`, one import line there, one test of its formula on a
4x6 matrix and one row in docs/methods.md. The contract test finds it by its registration.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.contract.cell_merge import merge_cells
from adapters_core.contract.kernel_group import BankPart, KernelGroup
from adapters_core.contract.layer import Coefficients, FileView, Shape, Site, Stack, TensorSpec
from adapters_core.contract.rows import PackedLayer, Rows, Segment
from adapters_core.errors import InvalidAdapter

if TYPE_CHECKING:
    from adapters_core.contract.peft_config import PeftConfig

__all__ = [
    "BankPart",
    "Coefficients",
    "FileView",
    "KernelGroup",
    "Method",
    "PackedLayer",
    "Rows",
    "Segment",
    "Shape",
    "Site",
    "TensorSpec",
]


@dataclass(frozen=True)
class Method(ABC):
    """Hyper-parameters of one layer's update, and the pure functions that give it meaning."""

    name: ClassVar[str]
    #: The value of `peft_type` in an adapter_config.json.
    peft_type: ClassVar[str]
    #: PEFT config fields this method reads itself; every other field must be off (see peft_config).
    peft_fields: ClassVar[frozenset[str]]
    #: Config field -> the field with the values of layers that differ, by pattern.
    pattern_fields: ClassVar[Mapping[str, str]] = {}
    #: The config's field of the dropout before the update at a training step; None: PEFT has none.
    dropout_field: ClassVar[str | None] = None
    #: Config field -> the only values that training heeds, where serving reads more or none.
    training_only: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    #: What the keys of shared tensors begin with, after `base_model.`.
    shared_prefixes: ClassVar[tuple[str, ...]] = ()
    #: Whether it may change a causal LM's output layer, of one row for each token there is.
    on_outputs: ClassVar[bool] = False
    #: Whether it has a factored form; else the rows of an adapter have merged weights in any mode.
    is_factored: ClassVar[bool] = True
    #: Whether a device may hold what it packs in float16: rounded coefficients, but no positions.
    may_be_half: ClassVar[bool] = False
    #: Whether the basis is made from the base's weights, and so is each layer's own.
    needs_base: ClassVar[bool] = False

    # The file and its config, for a whole adapter.

    @classmethod
    def reads(cls, config: "PeftConfig") -> bool:
        """Return whether adapters with this config are of this method."""
        return config.peft_type.upper() == cls.peft_type

    @classmethod
    def of_file(cls, view: FileView) -> dict[str, "Method"]:
        """Return target -> method for every layer in the file.

        Raises:
            InvalidAdapter: a hyper-parameter is out of range; `param` names it.
        """
        return {t: cls.from_peft(view.config, t, shapes) for t, shapes in view.tensors.items()}

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

    @classmethod
    def with_values(
        cls, methods: Mapping[str, "Method"], layers: Mapping[str, Coefficients]
    ) -> Mapping[str, "Method"]:
        """Return the methods again, now that the file's tensors have been read and checked."""
        return methods

    @classmethod
    def config_of(cls, methods: Mapping[str, "Method"]) -> dict[str, Any]:
        """Return PEFT's config fields for a whole adapter, target -> method; `of_file` reads them.

        Raises:
            InvalidAdapter: the layers differ in a way that PEFT's config has no word for.
        """
        configs = {target: method.to_peft() for target, method in methods.items()}
        common: dict[str, Any] = {}
        for name in next(iter(configs.values())):
            values = [config[name] for config in configs.values()]
            common[name] = max(values, key=values.count)
            others = {t: c[name] for t, c in configs.items() if c[name] != common[name]}
            if others and name not in cls.pattern_fields:
                raise InvalidAdapter(f"{name} differs between layers, which no config says", name)
            if others:
                # PEFT wants something before a pattern's dot: the first step of the path.
                rules = {target.partition(".")[2] or target: v for target, v in others.items()}
                common[cls.pattern_fields[name]] = rules
        return common

    @classmethod
    def metadata_of(
        cls, methods: Mapping[str, "Method"], shapes: Mapping[str, Shape]
    ) -> dict[str, Any]:
        """Return what our own files carry in their header beside the base; may be empty."""
        digests: dict[str, list[str | None]] = {}
        for method, shape in {(method, shapes[target]) for target, method in methods.items()}:
            name = f"{shape.out}x{shape.in_}"
            digests.setdefault(name, []).append(method.positions_digest(shape))
        # Where layers of one shape have different positions, there is no digest of them all.
        alike = {name: d[0] for name, d in sorted(digests.items()) if len(set(d)) == 1}
        positions = {name: digest for name, digest in alike.items() if digest is not None}
        return {"places": positions} if positions else {}

    @abstractmethod
    def to_peft(self) -> dict[str, Any]:
        """Return the hyper-parameters as PEFT's config fields; `from_peft` reads them back."""

    def config(self) -> dict[str, Any]:
        """Return the hyper-parameters as JSON values."""
        return asdict(self)

    @abstractmethod
    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        """Return what the file holds for a layer of this shape; all validation follows from it."""

    def check(self, coefficients: Coefficients, shape: Shape) -> None:
        """Refuse values that fit `tensors(shape)` but not the layer, such as positions outside it.

        The reader calls it once a layer, before anything is computed from the coefficients.

        Raises:
            InvalidAdapter: `param` is the tensor's name as in `tensors`.
        """
        return  # any finite number is a coefficient

    def is_zero(self, coefficients: Coefficients) -> bool:
        """Return whether the layer's delta is zero everywhere, as far as the file alone says."""
        return not any(bool(tensor.any()) for tensor in coefficients.values())

    def positions_digest(self, shape: Shape) -> str | None:
        """Return a digest of the seeded positions, for the file's header; None without any."""
        return None

    def fitted(self, shape: Shape) -> Self:
        """Return this method cut down to what a layer of this shape can hold."""
        return self

    def of_stack(self, stack: Stack) -> "Method":
        """Return this method for the matrices of one parameter; variants for stacks have it."""
        raise NotImplementedError(f"{self.name} changes no stacks")

    def of_layers(self, shapes: Mapping[str, Shape]) -> dict[str, "Method"]:
        """Return target -> method of a fresh adapter on these layers, each fitted to its own."""
        return {target: self.fitted(shape) for target, shape in shapes.items()}

    # The meaning.

    @abstractmethod
    def delta(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        """Return the dense update `[out, in_]`, float32, differentiable in the coefficients."""

    @abstractmethod
    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        """Return `delta[rows, cols]` in float64 by the defining sum, without any fast transform.

        Slow and independent of every library transform: the canary and the tests hold the fast
        ways against it. Only methods that need the base look at `basis`.
        """

    # What adapters share, and the fast ways.

    @abstractmethod
    def signature(self, shape: Shape) -> Hashable:
        """Return what two adapters must have in common to share a basis and a bank."""

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> Any:
        """Return what all adapters of this signature share on `device`; computed once and cached.

        Args:
            shape: the layer's shape.
            device: where the batch lives.
            dtype: float32, or float64 where the canary found float32 transforms wrong.
            site: the layer and its base; given whenever the method `needs_base`.

        Raises:
            InvalidAdapter: the base does not give the basis that the file was trained on.
        """
        return None

    def delta_many(self, layers: Sequence[Coefficients], shape: Shape, basis: Any) -> Tensor:
        """Return the deltas of several layers of one shape and signature: `[L, out, in_]`."""
        return torch.stack([self.delta(layer, shape, basis) for layer in layers])

    def changed_cells(
        self, coefficients: Coefficients, shape: Shape, basis: Any
    ) -> tuple[Tensor, Tensor] | None:
        """Return the cells that the delta changes and what is added there; None: most of them.

        Flat and row-major int64 `[c]`, ascending without repetition, and float32 `[c]`. Merging
        then costs a copy of the golden weight and c additions.
        """
        return None

    def merge_many(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: Any,
    ) -> None:
        """Write `golden + delta` of several layers to `out`, all `[out, in_]` and of one dtype.

        The sum is taken in float32 and rounded once; golden weights are not changed. What `out`
        held before is overwritten.
        """
        changed = [self.changed_cells(layer, shape, basis) for layer in layers]
        sparse = [cells for cells in changed if cells is not None]
        if len(sparse) == len(layers):
            for (cells, addends), weight, merged in zip(sparse, golden, out, strict=True):
                merge_cells(merged.copy_(weight), cells, addends)
            return
        deltas = self.delta_many(layers, shape, basis)
        for delta, weight, merged in zip(deltas, golden, out, strict=True):
            merged.copy_(delta.add_(weight))

    def merge_parts(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: Any,
    ) -> Sequence[Callable[[], None]] | None:
        """Return what `merge_many` does, up to rounding, as parts for several threads; None: none.

        Each part is one thread's work, runs beside others of Python's threads, and writes numbers
        of its own. What the parts are follows from the shapes alone, so bits do, too.
        """
        return None

    @abstractmethod
    def packed_length(self, shape: Shape) -> int:
        """Return how many float32 numbers `pack` gives for a layer of this shape."""

    @abstractmethod
    def pack(self, coefficients: Coefficients, shape: Shape, basis: Any) -> Tensor:
        """Return the coefficients as `apply` reads them: float32 `[packed_length]`, scaled.

        They are in host memory, and what is returned is there, too, unless the basis is needed.
        """

    def analysis_key(self, shape: Shape) -> Hashable | None:
        """Return what layers that see the same rows must share to share `analyse`; None: nothing.

        Two layers with equal keys get the same `analyse(x)`, whatever else differs.
        """
        return None

    def analyse(self, x: Tensor, shape: Shape, basis: Any) -> Any:
        """Return the rows x `[T, in_]` as `apply` reads them, such as their spectra."""
        return x

    @abstractmethod
    def apply(self, x: Any, layer: PackedLayer, rows: Rows, shape: Shape, basis: Any) -> Tensor:
        """Return `x[t] @ delta(slots[t]).T` for every row t of an analysed x: `[T, out]`.

        A row's bits must not depend on which other rows stand in the batch.
        """

    @classmethod
    def kernels(cls, parts: Sequence[BankPart]) -> KernelGroup | None:
        """Return the kernels of linears that see the same rows, where kernels run.

        None: `analyse` and `apply` do it.
        """
        return None

    # Training.

    @abstractmethod
    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        """Return fresh float32 coefficients whose delta is zero, as the file holds them.

        What layers share is drawn anew here; the trainer keeps one of each.
        """

    def training_init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        """Return what training starts from, where that is more than the file holds."""
        return self.init(shape, generator, basis)

    def training_tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        """Return the specs of what `training_init` gives."""
        return self.tensors(shape)

    def training_delta(self, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        """Return the delta of what `training_init` gave, differentiable in all that is trained."""
        return self.delta(trained, shape, basis)

    def training_key(self, shape: Shape, basis: Any) -> Hashable | None:
        """Return what layers that read the same rows must share to share `training_analyse`.

        None: nothing is gained by it.
        """
        return None

    def training_analyse(self, x: Tensor, shape: Shape, basis: Any) -> Any:
        """Return the rows x `[T, in_]` as `training_apply` reads them, differentiably."""
        return x

    def training_apply(self, x: Any, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        """Return `x @ training_delta.T` for rows that were analysed: `[T, out]`, differentiable.

        The update need not be built, and the result may be more precise than x was.
        """
        return F.linear(x, self.training_delta(trained, shape, basis).to(x.dtype))

    def export(self, trained: Coefficients, shape: Shape) -> dict[str, Tensor]:
        """Return what the file holds of what was trained."""
        return dict(trained)

    def training_schedule(self, step: int, num_steps: int) -> Collection[str] | None:
        """Return the names that the optimiser's step 0..num_steps - 1 moves; None: all."""
        return None

    def regulariser(self, layers: Mapping[str, Coefficients]) -> Tensor | None:
        """Return a term for the loss that depends on the adapter alone, or None."""
        return None

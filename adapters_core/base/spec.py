"""What an adapter may know of its base: names, shapes and a fingerprint."""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters_core.base.derived_files import DerivedFiles, digest_of_tensors
from adapters_core.base.renames import Rename, renames_of
from adapters_core.base.resident_weight import ResidentWeight
from adapters_core.contract.layer import Derived, Shape, Stack

if TYPE_CHECKING:
    from adapters_core.base.heads import HeadSpec

T = TypeVar("T")
#: Numbers of one tensor that enter the fingerprint, evenly spaced over it.
_SAMPLES = 4096
#: Multiplications that are done in place, a second or less.
LIGHT = 1 << 36
#: Those that compute `x W^T + bias` and nothing else.
_FORWARDS = (nn.Linear.forward, Conv1D.forward)
#: Modules with parameters that are no matrices of a routed or routing module.
_NO_STACKS = (nn.Linear, Conv1D, nn.Embedding, nn.modules.conv._ConvNd)
#: Roundings by which another way to the same product may differ, as a share of its norm.
_ROUNDINGS = 64


@dataclass(frozen=True)
class BaseSpec:
    """A resident base, without its weights.

    Args:
        name: what people call it.
        fingerprint: `sha256:…` over its parameters (see `fingerprint`).
        targets: path -> shape of every linear that an adapter may change, in the model's order.
        head: what a classifier's adapter may replace as a whole; None for all other bases.
        left_out: path -> reason, of the linears that no adapter may change (causal_probe.py).
        kept: targets of a causal LM that see only the rows whose logits are wanted, in order.
        renames: what modules of it were called before (renames.py).
        shared: targets of an encoder that see what all inputs of a batch share; an adapter that
            changes one has batches of its own.
        pads: whether an encoder's texts of different lengths may be padded to one: whether the
            padding changes no answer. Else a batch holds texts of one length only.
        outputs: path -> shape of a causal LM's output layer, which sees the rows whose logits are
            wanted: an adapter changes it only if its config names it.
        embeddings: path of the input and the output embedding -> its weight, for comparison.
        lookups: path -> shape of a causal LM's input embedding, as a map from one-hot tokens.
        stacks: parameter's path -> the matrices of a mixture's experts, or of its router.
        tied: whether the output layer's weight is the input embedding's.
    """

    name: str
    fingerprint: str
    targets: Mapping[str, Shape]
    head: "HeadSpec | None" = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    renames: tuple[Rename, ...] = ()
    shared: frozenset[str] = frozenset()
    pads: bool = True
    outputs: Mapping[str, Shape] = field(default_factory=dict)
    embeddings: Mapping[str, ResidentWeight] = field(default_factory=dict, compare=False)
    lookups: Mapping[str, Shape] = field(default_factory=dict)
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    tied: bool = False

    @property
    def usual(self) -> list[str]:
        """Return the targets that are adapted where none are named: those of any batch."""
        return [path for path in self.targets if path not in self.shared]

    @cached_property
    def layers(self) -> Mapping[str, Shape]:
        """Return path -> shape of all that a file may change, the targets first."""
        stacks = {path: stack.shape for path, stack in self.stacks.items()}
        return {**self.targets, **self.lookups, **stacks, **self.outputs}

    @property
    def kept_layers(self) -> frozenset[str]:
        """Return the layers that see only the rows whose logits are wanted."""
        return self.kept | frozenset(self.outputs)


def spec_of(model: nn.Module, name: str) -> BaseSpec:
    """Return the spec of a loaded model."""
    targets = {path: shape_of(module) for path, module in adaptable(model)}
    return BaseSpec(
        name,
        fingerprint(model),
        targets,
        left_out=dict(_own_ways(model)),
        renames=renames_of(model),
        embeddings=dict(_embeddings(model)),
        tied=_is_tied(model),
    )


def adaptable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module of every `nn.Linear` and `Conv1D` below the output embedding.

    A subclass with a forward of its own is one if it answers `x W^T + b` all the same (Falcon's);
    Llama 4's router does not.
    """
    for path, module in _linears(model):
        if _is_linear(module):
            yield path, module


def _own_ways(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield path and reason of every linear that `adaptable` does not yield."""
    for path, module in _linears(model):
        if not _is_linear(module):
            yield path, f"its class {type(module).__name__} has a forward pass of its own"


@torch.no_grad()
def _is_linear(module: nn.Module) -> bool:
    """Return whether a module answers `x W^T + b`; tried where its class has its own forward."""
    if type(module).forward in _FORWARDS:
        return True
    weight, bias = weight_of(module), getattr(module, "bias", None)
    x = 8 * torch.arange(3 * weight.shape[1], device=weight.device).cos()
    x = x.view(3, -1).to(weight.dtype)
    true = F.linear(x, weight, bias)
    try:
        got = module(x)
    except Exception:  # it wants something else than rows
        return False
    if not isinstance(got, Tensor) or got.shape != true.shape:
        return False
    error = _ROUNDINGS * torch.finfo(weight.dtype).eps * true.float().norm()
    return bool((got - true).float().norm() <= error)


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            yield path, module


def output_layer(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Return path and module of the layer that makes logits, if it computes `x W^T + bias`."""
    head = _embedding(model, "output")
    if head is None or type(head).forward is not nn.Linear.forward:
        return None
    return next(((path, head) for path, one in model.named_modules() if one is head), None)


def changeable(model: nn.Module) -> dict[str, nn.Module]:
    """Return path -> module of all that an adapter may change: `adaptable`, and the output."""
    output = output_layer(model)
    return dict(adaptable(model)) | ({} if output is None else dict([output]))


def _embedding(model: nn.Module, which: str) -> nn.Module | None:
    """Return the input or output embedding; None where the model says that it has none."""
    try:
        found = getattr(model, f"get_{which}_embeddings")()
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, nn.Module) else None


def input_embedding(model: nn.Module) -> tuple[str, nn.Embedding] | None:
    """Return path and module of the input embedding, if it looks a row up and may scale it."""
    found = _embedding(model, "input")
    if not isinstance(found, nn.Embedding) or found.max_norm is not None:
        return None
    ids = torch.arange(min(8, found.num_embeddings), device=found.weight.device)
    with torch.no_grad():
        rows = F.embedding(ids, found.weight) * embedding_scale(found)
        if type(found).forward is not nn.Embedding.forward and not torch.equal(found(ids), rows):
            return None
    return next(((path, found) for path, one in model.named_modules() if one is found), None)


def embedding_scale(embedding: nn.Embedding) -> float:
    """Return what an embedding multiplies its rows by, rounded to the rows' dtype (Gemma's)."""
    scale: Any = getattr(embedding, "embed_scale", 1.0)
    return float(scale.to(embedding.weight.dtype) if isinstance(scale, Tensor) else scale)


def _is_tied(model: nn.Module) -> bool:
    weights = [getattr(_embedding(model, which), "weight", None) for which in ("input", "output")]
    return weights[0] is not None and weights[0] is weights[1]


def stacks_of(model: nn.Module) -> dict[str, Stack]:
    """Return path -> matrices of every parameter that `own_stacks` knows, in the model's order."""
    return {
        f"{path}.{name}": stack
        for path, module in model.named_modules()
        for name, stack in own_stacks(module).items()
    }


def own_stacks(module: nn.Module) -> dict[str, Stack]:
    """Return name -> matrices of a module's own parameters with two or three axes.

    Two axes are one matrix, such as a router's. Modules that adapters change otherwise, and
    convolutions, have none.
    """
    if isinstance(module, _NO_STACKS):
        return {}
    transposed = bool(getattr(module, "is_transposed", False))
    found = {}
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim == 2 and not name.endswith("bias"):
            found[name] = Stack(1, *parameter.shape)
        elif parameter.ndim == 3:
            num, rows, cols = parameter.shape
            out, in_ = (cols, rows) if transposed else (rows, cols)
            found[name] = Stack(num, out, in_, transposed)
    return found


def _embeddings(model: nn.Module) -> Iterator[tuple[str, ResidentWeight]]:
    named = [_embedding(model, "input"), _embedding(model, "output")]
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and any(module is one for one in named):
            yield path, ResidentWeight(weight)


def _sample(tensor: Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    step = max(1, -(-flat.numel() // _SAMPLES))
    sample = flat[::step].to(torch.bfloat16).cpu().contiguous()
    values = sample.view(torch.int16).numpy().astype("<i2").tobytes()
    return f"{list(tensor.shape)}\0".encode() + values


def shape_of(linear: nn.Module) -> Shape:
    """Return the shape as a map; GPT-2's `Conv1D` stores its weight as `[in, out]`."""
    out, in_ = weight_of(linear).shape
    return Shape(out, in_)


def weight_of(linear: nn.Module) -> Tensor:
    """Return the weight as a view `[out, in]`."""
    weight = linear.weight
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(linear, Conv1D) else weight


@torch.no_grad()
def fingerprint(model: nn.Module) -> str:
    """Return `sha256:…` over every parameter's name, shape and evenly spaced values.

    Values are taken as bfloat16, so that a base stored in bfloat16 has one fingerprint whatever
    dtype and device it was loaded to. Up to 4096 values of a tensor are read: any training moves
    them; two bases that differ in a few single weights of a large tensor are not told apart.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}\0".encode() + _sample(parameter))
    return "sha256:" + digest.hexdigest()


class BaseWeights:
    """A resident base's weights, for methods whose basis is made from them; see layer.Weights.

    Args:
        spec: of the base.
        weight: path -> golden weight `[out, in]` as a view.
        folder: where what takes long to compute is kept, of all bases; None keeps nothing.
        elsewhere: computes what is not light and not kept yet in another process; raises
            BasisPending until that is there. None: all is computed in place.
        report: told what is computed in place, and the share of it that is done, 0..1.
    """

    def __init__(
        self,
        spec: BaseSpec,
        weight: Callable[[str], Tensor],
        folder: Path | None = None,
        elsewhere: "Callable[[Derived, BaseWeights], NoReturn] | None" = None,
        report: Callable[[str, float], None] = lambda name, share: None,
    ) -> None:
        self.fingerprint, self.shapes = spec.fingerprint, spec.layers
        self.weight = weight
        base = self.fingerprint.removeprefix("sha256:")[:32]
        self._files = None if folder is None else DerivedFiles(folder / base)
        self._elsewhere, self._report = elsewhere, report
        self._digests: dict[tuple[str, ...], str] = {}
        self._held: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()

    def kept(self, derived: Derived) -> Mapping[str, Tensor]:
        """Return tensors by name, computed once for these weights and then kept on disk.

        Raises:
            BasisPending: they are being computed in another process.
        """
        if self._files is None:
            return self._made(derived)
        origin = self._digest(derived.paths)
        found = self._files.read(derived.name, origin)
        if found is None and derived.work > LIGHT and self._elsewhere is not None:
            self._elsewhere(derived, self)
        return found or self._files.read_or_made(derived.name, origin, lambda: self._made(derived))

    def kept_before(self, name: str) -> Tensor | None:
        """Return the one tensor that an earlier version kept under a name, if it is there."""
        return None if self._files is None else self._files.unchecked(name)

    def held(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` gives, in memory once for this base while it is referenced."""
        found = self._held.get(key)
        if found is None:
            found = self._held[key] = make()
        return found

    def _made(self, derived: Derived) -> dict[str, Tensor]:
        return derived.make(self, derived.argument, partial(self._report, derived.name))

    def _digest(self, paths: tuple[str, ...]) -> str:
        """Return the digest of the weights at `paths`: of all their numbers, in float32."""
        if paths not in self._digests:
            named = ((path, self.weight(path)) for path in paths)
            self._digests[paths] = digest_of_tensors(named)
        return self._digests[paths]


def weights_of(
    model: nn.Module,
    spec: BaseSpec,
    folder: Path | None = None,
    elsewhere: Callable[[Derived, BaseWeights], NoReturn] | None = None,
    report: Callable[[str, float], None] = lambda name, share: None,
) -> BaseWeights:
    """Return the weights of a loaded model, taken before anything is injected into it.

    Args:
        model: the base.
        spec: of it.
        folder: as for `BaseWeights`.
        elsewhere: likewise.
        report: likewise.
    """
    weights = {path: weight_of(linear).detach() for path, linear in changeable(model).items()}
    embedding = input_embedding(model)
    if embedding is not None:
        weights[embedding[0]] = embedding[1].weight.detach().T
    for path, stack in stacks_of(model).items():
        weights[path] = model.get_parameter(path).detach().view(*stack.shape)
    return BaseWeights(spec, weights.__getitem__, folder, elsewhere, report)

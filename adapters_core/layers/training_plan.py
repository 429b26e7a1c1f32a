"""The training plan: every row of a forward pass gets one adapter's delta, differentiably.

Training uses the same injected linears as serving; only the plan differs.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters_core.contract.layer import Shape, TensorSpec
from adapters_core.contract.method import Method
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.linear import AdaptedLayer


@dataclass(frozen=True)
class _Analysis:
    """What the last linear read, analysed: q, k and v read the same rows, and so do gate and up.

    x is held on to, so that its memory is no other tensor's.
    """

    x: Tensor
    version: int
    with_gradient: bool
    key: Hashable
    rows: Any

    def is_of(self, x: Tensor, key: Hashable) -> bool:
        """Return whether it is that of x, as a place in autograd's graph, and of the key."""
        return (
            self.key == key
            and self.version == x._version
            and self.with_gradient == torch.is_grad_enabled()
            and _are_one(self.x, x)
        )


def _are_one(a: Tensor, b: Tensor) -> bool:
    """Return whether both are one tensor, or equal views of one."""
    if a is b:
        return True
    if a._base is None or a._base is not b._base:
        return False
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


class TrainingPlan:
    """Trainable coefficients of one method on some layers of a base.

    Args:
        method: the same for all layers, or of each target; all of one kind.
        shapes: target -> shape of the layers to adapt.
        bases: the cache of what the method precomputes.
        generator: draws the fresh coefficients, whose delta is zero.
        dropout: the share of a layer's inputs that the update does not see while the model trains.
        tell: called after each layer with how many are ready, and of how many: what is made from
            the base's weights takes long on a wide one.
    """

    def __init__(
        self,
        method: Method | Mapping[str, Method],
        shapes: Mapping[str, Shape],
        bases: BasisCache,
        generator: torch.Generator,
        dropout: float = 0.0,
        tell: Callable[[int, int], None] = lambda done, count: None,
    ) -> None:
        self.methods = laid_out(method, shapes)
        self._method = method if isinstance(method, Method) else next(iter(method.values()))
        self._dropout = dropout
        self._bases = bases
        self._shapes = dict(shapes)
        self._shared: dict[str, nn.Parameter] = {}
        self._last: _Analysis | None = None
        self.layers: dict[str, dict[str, nn.Parameter]] = {}
        for target, shape in shapes.items():
            self.layers[target] = self._fresh_layer(target, shape, generator)
            tell(len(self.layers), len(shapes))

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield every trainable tensor, one that layers share once."""
        seen: set[int] = set()
        for layer in self.layers.values():
            for tensor in layer.values():
                if tensor.requires_grad and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield tensor

    def named(self) -> Iterator[tuple[str, TensorSpec, nn.Parameter]]:
        """Yield a name, the spec and the tensor of all that a checkpoint holds, each once."""
        seen: set[int] = set()
        for target, layer in self.layers.items():
            specs = self.methods[target].training_tensors(self._shapes[target])
            for name, tensor in layer.items():
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{target}.{name}", specs[name], tensor

    def freeze_scheduled(self, step: int, num_steps: int) -> None:
        """Forget the gradients of what the method's schedule does not move at this step.

        To be called between backward and the optimiser's step, which then leaves them alone.
        """
        moving = self._method.training_schedule(step, num_steps)
        if moving is None:
            return
        for layer in self.layers.values():
            for name, tensor in layer.items():
                if name not in moving:
                    tensor.grad = None

    def regulariser(self) -> Tensor | None:
        """Return the method's own term of the loss, if it has one."""
        return self._method.regulariser(self.layers)

    @torch.no_grad()
    def step_of(self, target: str, rate: float, generator: torch.Generator) -> Tensor:
        """Return what one step of AdamW adds to a layer's delta `[out, in]`; nothing is changed.

        A first step moves each coefficient by about the rate; here the signs are drawn.
        """
        layer, method, shape = self.layers[target], self.methods[target], self._shapes[target]
        basis = self._bases.get(method, shape, target, layer)
        specs = method.training_tensors(shape)
        moved = dict[str, Tensor](layer)
        for name, tensor in layer.items():
            if tensor.requires_grad and specs[name].role == "coefficients":
                signs = torch.randn(tensor.shape, generator=generator).sign().to(tensor.device)
                moved[name] = tensor + rate * specs[name].rate * signs
        return method.training_delta(moved, shape, basis) - method.training_delta(
            layer, shape, basis
        )

    def exported(self) -> dict[str, dict[str, Tensor]]:
        """Return target -> coefficients as the file holds them."""
        return {
            target: {
                name: tensor.detach()
                for name, tensor in self.methods[target].export(layer, self._shapes[target]).items()
            }
            for target, layer in self.layers.items()
        }

    def _fresh_layer(
        self, target: str, shape: Shape, generator: torch.Generator
    ) -> dict[str, nn.Parameter]:
        method = self.methods[target]
        basis = self._bases.get(method, shape, target)
        specs = method.training_tensors(shape)
        layer = {}
        for name, tensor in method.training_init(shape, generator, basis).items():
            spec = specs[name]
            is_trained = tensor.is_floating_point() and spec.trained
            made = nn.Parameter(tensor.to(self._bases.device), is_trained)
            shared = spec.shared
            layer[name] = made if shared is None else self._shared.setdefault(shared, made)
        return layer

    def forward(self, linear: AdaptedLayer, x: Tensor) -> Tensor:
        """Return `[T, out]` for x `[T, in]`."""
        y = linear.base_rows(x)
        layer = self.layers.get(linear.path)
        if layer is None:
            return y
        method = self.methods[linear.path]
        basis = self._bases.get(method, linear.shape, linear.path, layer)
        if self._dropout:
            x = F.dropout(x, self._dropout, linear.training)
        rows = self._analysed(method, x, linear.shape, basis)
        return y + method.training_apply(rows, layer, linear.shape, basis).to(y.dtype)

    def _analysed(self, method: Method, x: Tensor, shape: Shape, basis: Any) -> Any:
        """Return the rows x as the method reads them, once for linears that share them."""
        key = method.training_key(shape, basis)
        if key is None:
            return method.training_analyse(x, shape, basis)
        if self._last is None or not self._last.is_of(x, key):
            rows = method.training_analyse(x, shape, basis)
            self._last = _Analysis(x, x._version, torch.is_grad_enabled(), key, rows)
        return self._last.rows


def laid_out(
    method: Method | Mapping[str, Method], shapes: Mapping[str, Shape]
) -> dict[str, Method]:
    """Return target -> method, each cut down to what its layer can hold.

    Args:
        method: the same for all layers, or of each target; all of one kind.
        shapes: target -> shape of the layers.

    Raises:
        InvalidAdapter: layers that share something differ in what they must have in common.
    """
    if isinstance(method, Method):
        return method.of_layers(shapes)
    first = next(iter(method.values()))
    if not first.pattern_fields or all(own == first for own in method.values()):
        return first.of_layers(shapes)
    return {target: method[target].fitted(shape) for target, shape in shapes.items()}

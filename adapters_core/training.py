"""The training plan: every row of a forward pass gets one adapter's delta, differentiably.

Training uses the same injected linears as serving; only the plan differs.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters_core.bases import Bases
from adapters_core.linear import AdaptedLinear
from adapters_core.method import Method, Shape


class TrainingPlan:
    """Trainable coefficients of one method on some layers of a base.

    Args:
        method: the same for all layers.
        shapes: target -> shape of the layers to adapt.
        bases: the cache of what the method precomputes.
        generator: draws the fresh coefficients, whose delta is zero.
    """

    def __init__(
        self,
        method: Method,
        shapes: Mapping[str, Shape],
        bases: Bases,
        generator: torch.Generator,
    ) -> None:
        self.method = method
        self._bases = bases
        self.layers = {
            target: {
                name: nn.Parameter(tensor.to(bases.device), tensor.is_floating_point())
                for name, tensor in method.init(shape, generator).items()
            }
            for target, shape in shapes.items()
        }

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield every trainable tensor."""
        for layer in self.layers.values():
            yield from (tensor for tensor in layer.values() if tensor.requires_grad)

    def forward(self, linear: AdaptedLinear, x: Tensor) -> Tensor:
        """Return `[T, out]` for x `[T, in]`."""
        y = linear.base_rows(x)
        layer = self.layers.get(linear.path)
        if layer is None:
            return y
        basis = self._bases.get(self.method, linear.shape)
        return y + F.linear(x, self.method.delta(layer, linear.shape, basis).to(x.dtype))

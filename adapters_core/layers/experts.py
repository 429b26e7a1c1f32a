"""A module with stacks of matrices, such as a mixture's experts, some with an adapter's own.

Such a module takes rows with their routing and computes with its parameters; an adapter that
changes them has merged copies, and its rows go through the module with these in their place
(torch.func.functional_call).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from adapters_core.base.module_rows import ModuleRows
from adapters_core.base.spec import own_stacks
from adapters_core.contract.layer import Shape
from adapters_core.layers.linear import Switch


class AdaptedStack:
    """One parameter of such a module: what merging needs to know of it."""

    is_looked_up = False

    def __init__(self, module: nn.Module, name: str, path: str, shape: Shape) -> None:
        self.name, self.path, self.shape = name, path, shape
        self._module = module

    @property
    def parameter(self) -> Tensor:
        """Return the parameter, with two or three axes."""
        return self._module.get_parameter(self.name)

    def golden(self) -> Tensor:
        """Return the base's own matrices, one below the other, as a view; see layer.Stack."""
        return self.parameter.detach().view(*self.shape)


class AdaptedExperts(nn.Module):
    """Stands in for a module with stacks; without a plan it computes what that one does.

    Args:
        base: the module.
        path: its own in the model.
        switch: where the running plan stands.
    """

    def __init__(self, base: nn.Module, path: str, switch: Switch) -> None:
        super().__init__()
        self.base: nn.Module = base
        self.path = path
        self._switch = switch
        self.stacks = {
            f"{path}.{name}": AdaptedStack(base, name, f"{path}.{name}", stack.shape)
            for name, stack in own_stacks(base).items()
        }

    def forward(self, *positional: Any, **named: Any) -> Any:
        """Return what the module does, each row through its adapter's own matrices."""
        forward = getattr(self._switch.plan, "forward_module", None)
        if forward is None:
            return self.base(*positional, **named)
        return forward(self, ModuleRows(positional, named))

    def rows_with(self, weights: Mapping[str, Tensor], rows: ModuleRows) -> Any:
        """Return the module's answer with some adapter's matrices, path -> `[num * rows, cols]`."""
        own = {
            stack.name: weights[path].view(stack.parameter.shape)
            for path, stack in self.stacks.items()
            if path in weights
        }
        return functional_call(self.base, own, rows.positional, dict(rows.named))

    def base_rows(self, rows: ModuleRows) -> Any:
        """Return the module's own answer."""
        return self.base(*rows.positional, **rows.named)

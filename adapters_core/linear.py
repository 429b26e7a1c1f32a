"""A base linear that asks a plan, at every forward, what each of its rows gets on top."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from adapters_core.base import shape_of, weight_of


class Plan(Protocol):
    """Decides what the rows of one forward pass get. Serving and training each have theirs."""

    def forward(self, linear: "AdaptedLinear", x: Tensor) -> Tensor:
        """Return `[T, out]` for x `[T, in]`."""


class Switch:
    """Where the plan of the running forward pass stands, for all linears of a model."""

    def __init__(self) -> None:
        self.plan: Plan | None = None


class AdaptedLinear(nn.Module):
    """Stands in for a base linear; without a plan it computes exactly what that one does.

    Args:
        base: the linear.
        path: its own in the model.
        switch: where the running plan stands.
        sees_kept: whether it sees only the rows whose logits are wanted (causal_probe.py).
    """

    def __init__(self, base: nn.Module, path: str, switch: Switch, sees_kept: bool = False) -> None:
        super().__init__()
        self.base = base
        self.path = path
        self.sees_kept = sees_kept
        self.shape = shape_of(base)
        self._switch = switch

    def forward(self, x: Tensor) -> Tensor:
        """Return `[..., out]` for x `[..., in]`."""
        plan = self._switch.plan
        if plan is None:
            result: Tensor = self.base(x)
            return result
        return plan.forward(self, x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], self.shape.out)

    def golden(self) -> Tensor:
        """Return the base's own weight as a view `[out, in]`; nothing ever writes to it."""
        return weight_of(self.base)

    @property
    def weight(self) -> Tensor:
        """Return the base's own weight as the base stores it: some models look at its dtype."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """Return the base's bias `[out]`, if it has one."""
        bias = self.base.bias
        assert bias is None or isinstance(bias, Tensor)
        return bias

    def base_rows(self, x: Tensor) -> Tensor:
        """Return the base's own answer for x `[T, in]`."""
        return F.linear(x, self.golden(), self.bias)

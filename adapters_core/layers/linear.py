"""Layers of a base that ask a plan, at every forward, what each of their rows gets on top."""

from abc import ABC, abstractmethod
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from adapters_core.base.spec import embedding_scale, shape_of, weight_of
from adapters_core.contract.layer import Shape


class Plan(Protocol):
    """Decides what the rows of one forward pass get. Serving and training each have theirs."""

    def forward(self, layer: "AdaptedLayer", x: Tensor, /) -> Tensor:
        """Return `[T, out]` for x `[T, in]`, or for tokens x `[T]` of an embedding."""


class Switch:
    """Where the plan of the running forward pass stands, for all layers of a model."""

    def __init__(self) -> None:
        self.plan: Plan | None = None


class Apart:
    """An update that is handed over beside a linear's answer, in place of being added to it.

    What adds the answer to something else asks for that before it calls the linear, and takes the
    update afterwards. Where several things change the linear there may be none.
    """

    def __init__(self) -> None:
        self.is_asked_for = False
        self._handed: tuple[Tensor, Tensor] | None = None

    def ask(self) -> None:
        """Let the next call of the linear hand its update over."""
        self.is_asked_for, self._handed = True, None

    def put(self, update: Tensor, answer: Tensor) -> None:
        """Hand over the update `[T, out]` that belongs to an answer `[T, out]`."""
        self.is_asked_for, self._handed = False, (update, answer)

    def take(self) -> tuple[Tensor, Tensor] | None:
        """Return the update and its answer, if they were handed over, and ask no more."""
        handed, self._handed, self.is_asked_for = self._handed, None, False
        return handed


class AdaptedLayer(nn.Module, ABC):
    """Stands in for a layer of the base; without a plan it computes exactly what that one does.

    Args:
        base: the layer.
        path: its own in the model.
        shape: of its weight as a map.
        switch: where the running plan stands.
    """

    is_looked_up = False
    apart: Apart | None = None

    def __init__(self, base: nn.Module, path: str, shape: Shape, switch: Switch) -> None:
        super().__init__()
        self.base: nn.Module = base
        self.path = path
        self.shape = shape
        self.sees_kept = False
        self._switch = switch

    @property
    def weight(self) -> Tensor:
        """Return the base's own weight as the base stores it: some models look at its dtype."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    @abstractmethod
    def golden(self) -> Tensor:
        """Return the base's own weight as a view `[out, in]`; nothing ever writes to it."""

    @abstractmethod
    def base_rows(self, x: Tensor) -> Tensor:
        """Return the base's own answer for the rows x."""

    @abstractmethod
    def rows_with(self, weight: Tensor, x: Tensor) -> Tensor:
        """Return the answer for the rows x with another weight `[out, in]`."""

    def scaled(self, update: Tensor) -> Tensor:
        """Return an update `[T, out]` as it is added to the base's answer."""
        return update


class AdaptedLinear(AdaptedLayer):
    """Stands in for a base linear.

    Args:
        base, path, switch: as above.
        sees_kept: whether it sees only the rows whose logits are wanted (base/causal_probe.py).
    """

    def __init__(self, base: nn.Module, path: str, switch: Switch, sees_kept: bool = False) -> None:
        super().__init__(base, path, shape_of(base), switch)
        self.sees_kept = sees_kept
        self.apart = Apart()

    def forward(self, x: Tensor) -> Tensor:
        """Return `[..., out]` for x `[..., in]`."""
        plan = self._switch.plan
        if plan is None:
            result: Tensor = self.base(x)
            return result
        return plan.forward(self, x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], self.shape.out)

    def golden(self) -> Tensor:
        return weight_of(self.base)

    @property
    def bias(self) -> Tensor | None:
        """Return the base's bias `[out]`, if it has one."""
        bias = self.base.bias
        assert bias is None or isinstance(bias, Tensor)
        return bias

    def base_rows(self, x: Tensor) -> Tensor:
        return F.linear(x, self.golden(), self.bias)

    def rows_with(self, weight: Tensor, x: Tensor) -> Tensor:
        return F.linear(x, weight, self.bias)

    def put_bias(self, y: Tensor) -> bool:
        """Write the base's bias to every row of y `[T, out]`; return whether there is one."""
        if self.bias is not None:
            y.copy_(self.bias.expand_as(y))
        return self.bias is not None

    def add_product(self, y: Tensor, x: Tensor) -> Tensor:
        """Return y `[T, out]`, to which the rows x times the base's own weight were added."""
        return y.addmm_(x, self.golden().T)


class AdaptedEmbedding(AdaptedLayer):
    """Stands in for a base's input embedding: a map from one-hot tokens, `[hidden, vocabulary]`."""

    is_looked_up = True

    def __init__(self, base: nn.Embedding, path: str, switch: Switch) -> None:
        super().__init__(base, path, Shape(base.embedding_dim, base.num_embeddings), switch)
        self._scale = embedding_scale(base)

    def forward(self, ids: Tensor) -> Tensor:
        """Return `[..., hidden]` for tokens `[...]`."""
        plan = self._switch.plan
        if plan is None:
            result: Tensor = self.base(ids)
            return result
        return plan.forward(self, ids.reshape(-1)).view(*ids.shape, self.shape.out)

    def golden(self) -> Tensor:
        return self.weight.T

    def base_rows(self, x: Tensor) -> Tensor:
        rows: Tensor = self.base(x)
        return rows

    def rows_with(self, weight: Tensor, x: Tensor) -> Tensor:
        return self.scaled(F.embedding(x, weight.T))

    def scaled(self, update: Tensor) -> Tensor:
        return update if self._scale == 1 else update * self._scale

"""Random, large adapters for the start's comparison of a base with transformers.

Their updates have rank one. Served, they are LoRA in a bank; in transformers' own forward pass
hooks add them to the output of each linear.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from adapters_core.bank import Bank, Layout
from adapters_core.linear import AdaptedLinear
from adapters_core.method import Coefficients, Shape
from adapters_core.methods import LoRA
from server.adapters.payload import Factored

_METHOD = LoRA(r=1, alpha=1.0)
_A, _B = "lora_A.weight", "lora_B.weight"

#: Target -> the factors of its update, float32 `[1, in]` and `[out, 1]`.
Updates = Mapping[str, Coefficients]


def random_updates(
    linears: Mapping[str, AdaptedLinear], targets: Iterable[str], seed: int, strength: float
) -> Updates:
    """Return an update of each target, of `strength` times its weight's norm."""
    generator = torch.Generator().manual_seed(seed)
    updates: dict[str, Coefficients] = {}
    for target in targets:
        linear = linears[target]
        size = torch.linalg.vector_norm(linear.golden(), dtype=torch.float32).cpu()
        a = torch.randn(1, linear.shape.in_, generator=generator)
        b = torch.randn(linear.shape.out, 1, generator=generator)
        updates[target] = {_A: a / a.norm(), _B: strength * size * b / b.norm()}
    return updates


def layout_of(targets: Iterable[str], shapes: Mapping[str, Shape]) -> Layout:
    """Return the layout of a bank for updates of these targets."""
    return Layout.of(dict.fromkeys(targets, _METHOD), shapes)


def packed(bank: Bank, updates: Updates) -> Factored:
    """Return the updates as an adapter in a bank of their layout."""
    return Factored(bank, bank.add(bank.pack(dict.fromkeys(updates, _METHOD), updates)))


def dense(update: Coefficients) -> Tensor:
    """Return one layer's update, float32 `[out, in]`."""
    return update[_B] @ update[_A]


@contextmanager
def added(linears: Mapping[str, AdaptedLinear], updates: Updates) -> Iterator[None]:
    """Add the updates to the linears' outputs by hooks until the block ends."""
    hooks = [
        linears[target].register_forward_hook(_adding(update)) for target, update in updates.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(update: Coefficients) -> Callable[..., Tensor]:
    def add(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        a, b = (update[name].to(out.device) for name in (_A, _B))
        return (out.float() + args[0].float() @ a.T @ b.T).to(out.dtype)

    return add

"""Linears with weights that other code reads, past their own forward pass.

An adapter changes what a linear answers when it is called. Code that takes the weight and computes
with it by itself (the absorbed projections of some latent attentions) would not notice the adapter.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def weight_reads(linears: Iterable[tuple[str, nn.Module]]) -> Iterator[set[str]]:
    """Give the paths of linears with a weight that other code reads, as they are found."""
    found: set[str] = set()
    with ExitStack() as stack:
        for path, linear in linears:
            stack.enter_context(_watched(path, linear, found))
        yield found


@contextmanager
def _watched(path: str, linear: nn.Module, found: set[str]) -> Iterator[None]:
    kind = type(linear)
    running = 0

    def read(self: nn.Module, name: str) -> Any:
        if name == "weight" and not running:
            found.add(path)
        return kind.__getattr__(self, name)

    def enter(*_: Any) -> None:
        nonlocal running
        running += 1

    def leave(*_: Any) -> None:
        nonlocal running
        running -= 1

    hooks = linear.register_forward_pre_hook(enter), linear.register_forward_hook(leave)
    linear.__class__ = type(kind.__name__, (kind,), {"__getattr__": read})
    try:
        yield
    finally:
        linear.__class__ = kind
        for hook in hooks:
            hook.remove()

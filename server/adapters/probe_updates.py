"""Random, large adapters for the start's comparison of a base with transformers.

Their updates have rank one. Served, they are LoRA in a bank; in transformers' own forward pass
hooks add them to the output of each layer.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters_core.contract.method import Coefficients, Shape
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.linear import AdaptedLayer
from adapters_core.methods import LoRA, LoRAEmbedding
from server.adapters.payload import Factored

_LINEAR, _EMBEDDING = LoRA(r=1, alpha=1.0), LoRAEmbedding(r=1, alpha=1.0)

#: Target -> the factors of its update, float32 `[1, in]` and `[out, 1]`.
Updates = Mapping[str, Coefficients]


def random_updates(
    layers: Mapping[str, AdaptedLayer], targets: Iterable[str], seed: int, strength: float
) -> Updates:
    """Return an update of each target, of `strength` times its weight's norm."""
    generator = torch.Generator().manual_seed(seed)
    updates: dict[str, Coefficients] = {}
    for target in targets:
        layer = layers[target]
        size = torch.linalg.vector_norm(layer.golden(), dtype=torch.float32).cpu()
        a = torch.randn(1, layer.shape.in_, generator=generator)
        b = torch.randn(layer.shape.out, 1, generator=generator)
        names = _method(layer.is_looked_up).factors
        updates[target] = {names[0]: a / a.norm(), names[1]: strength * size * b / b.norm()}
    return updates


def _method(is_looked_up: bool) -> LoRA:
    return _EMBEDDING if is_looked_up else _LINEAR


def _methods(updates: Updates) -> dict[str, LoRA]:
    embedding = _EMBEDDING.factors[0]
    return {target: _method(embedding in update) for target, update in updates.items()}


def layout_of(
    targets: Iterable[str], shapes: Mapping[str, Shape], embeddings: Collection[str] = ()
) -> Layout:
    """Return the layout of a bank for updates of these targets; `embeddings` are among them."""
    return Layout.of({target: _method(target in embeddings) for target in targets}, shapes)


def packed(bank: Bank, updates: Updates) -> Factored:
    """Return the updates as an adapter in a bank of their layout."""
    return Factored(bank, bank.add(bank.pack(_methods(updates), updates)))


def dense(update: Coefficients) -> Tensor:
    """Return one layer's update, float32 `[out, in]`."""
    a, b = update.values()
    return b @ a


@contextmanager
def added(layers: Mapping[str, AdaptedLayer], updates: Updates) -> Iterator[None]:
    """Add the updates to the layers' outputs by hooks until the block ends."""
    hooks = [
        layers[target].register_forward_hook(_adding(layers[target], update))
        for target, update in updates.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(layer: AdaptedLayer, update: Coefficients) -> Callable[..., Tensor]:
    def add(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        a, b = (factor.to(out.device) for factor in update.values())
        if layer.is_looked_up:
            # In half precision rounded as served: otherwise a mixture may route tokens elsewhere.
            rows = (F.embedding(args[0], a.T) @ b.T).to(out.dtype)
            return out + layer.scaled(rows)
        return (out.float() + args[0].float() @ a.T @ b.T).to(out.dtype)

    return add

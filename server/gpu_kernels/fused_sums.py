"""Decoder layers that add an adapter's update where they add a linear's answer to the residual.

The update is computed beside the product, and waits for nothing behind it. Added to the residual
itself it would be lost: it is below half a place of a large residual in half precision.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import unwrap
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.layers.linear import AdaptedLinear, Apart
from server.gpu_kernels.module_check import KNOWN, name_of
from server.gpu_kernels.rows import summed

#: Types whose answer is that of their last linear, by its name.
_LAST = {f"{name}Attention": "o_proj" for name in KNOWN} | {
    f"{name}MLP": "down_proj" for name in KNOWN
}


def fused_sums(module: Any) -> Callable[..., Tensor] | None:
    """Return a decoder layer's forward that adds updates with the residual.

    None: its own forward does not add as Llama's does, or no adapted linear hands an update over.
    """
    kind: Any = type(module)
    if not name_of(module).endswith("DecoderLayer") or not _adds_as_llama(kind):
        return None
    if _apart(module.self_attn) is None and _apart(module.mlp) is None:
        return None
    plain = module.forward

    def forward(hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
        if torch.is_grad_enabled() or args:
            whole: Tensor = plain(hidden_states, *args, **options)
            return whole
        return _layer(module, hidden_states, options)

    return forward


def _layer(layer: Any, x: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Return what a decoder layer like Llama's makes of x."""
    normed = layer.input_layernorm(x)
    attend = layer.self_attn
    x = _added(x, attend, lambda: attend(hidden_states=normed, **options)[0])
    behind = layer.post_attention_layernorm(x)
    return _added(x, layer.mlp, lambda: layer.mlp(behind))


@lru_cache(maxsize=16)
def _adds_as_llama(kind: type) -> bool:
    """Return whether a type's own forward is `_layer`, over stand-ins for its modules."""
    stand_ins: Any = SimpleNamespace(
        input_layernorm=torch.sin,
        self_attn=lambda hidden_states, shift, **others: (hidden_states.cos() + shift, None),
        post_attention_layernorm=torch.tanh,
        mlp=torch.exp,
    )
    x, options = torch.linspace(-1, 1, 7), {"shift": 0.5}
    own: Any = unwrap(kind.forward)  # type: ignore[attr-defined]
    try:
        answer = own(stand_ins, x, **options)
    except Exception:  # it uses other modules, or gives other arguments
        return False
    return isinstance(answer, Tensor) and torch.equal(answer, _layer(stand_ins, x, options))


def _added(residual: Tensor, module: nn.Module, run: Callable[[], Tensor]) -> Tensor:
    """Return a residual plus a module's answer."""
    apart = _apart(module)
    if apart is None:
        return residual + run()
    apart.ask()
    try:
        answer = run()
    finally:
        handed = apart.take()
    if handed is None:
        return residual + answer
    update, own = handed
    assert own.data_ptr() == answer.data_ptr(), "the answer is not the last linear's"
    return summed(residual, answer, update)


def _apart(module: nn.Module) -> Apart | None:
    """Return how the last linear of a module hands its update over."""
    last = getattr(module, _LAST.get(name_of(module), ""), None)
    return last.apart if isinstance(last, AdaptedLinear) else None

"""Puts kernels in the place of a base's norms, gates, rotations and sums, and takes them out again.

Only modules of transformers that are known to compute these, by their classes' names; each is
compared with its own forward on random rows before it is replaced. Where a gradient is wanted, or
rows are of another type, a module's own forward runs. transformers' hooks for kernels do nothing
without the package `kernels`, and with it take kernels from a hub, so modules are patched.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from server.gpu_kernels.fused_rotation import fused_attention
from server.gpu_kernels.fused_sums import fused_sums
from server.gpu_kernels.module_check import GEMMAS, KNOWN, agree, name_of, random
from server.gpu_kernels.rows import LONGEST_NORM, gated, normed

#: Name of a norm's class -> whether one is added to its weight.
_NORMS = {f"{name}RMSNorm": name in GEMMAS for name in KNOWN}
_MLPS = {f"{name}MLP" for name in KNOWN}
#: Name of an activation's class -> whether it is SiLU; else GELU by a hyperbolic tangent.
_ACTIVATIONS = {"SiLUActivation": True, "SiLU": True, "GELUTanh": False}
_ROWS = 3

Forward = Callable[[Tensor], Tensor]


@dataclass
class Fusion:
    """What was replaced; `undo` gives the model back.

    Args:
        replaced: kind of modules -> how many.
    """

    replaced: Counter[str] = field(default_factory=Counter)
    _undone: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def undo(self) -> None:
        """Put every module's own forward back; safe to call twice."""
        while self._undone:
            self._undone.pop()()

    def replace(self, kind: str, module: nn.Module, forward: Callable[..., Any]) -> None:
        """Give a module another forward, until `undo`."""
        before = vars(module).get("forward")
        module.forward = forward

        def undo() -> None:
            del module.forward
            if before is not None:
                module.forward = before

        self._undone.append(undo)
        self.replaced[kind] += 1


@torch.inference_mode()
def fuse(model: nn.Module) -> Fusion:
    """Let kernels compute what they can of a model on a device where they run."""
    fusion = Fusion()
    makers = {
        "norms": _fused_norm,
        "gates": _fused_mlp,
        "rotations": fused_attention,
        "sums": fused_sums,
    }
    for module in model.modules():
        for kind, make in makers.items():
            by: Any = make(module)
            if by is not None:
                fusion.replace(kind, module, by)
    return fusion


def _fused_norm(module: Any) -> Forward | None:
    """Return a norm's forward by a kernel; None if it is no norm that is known."""
    adds_one = _NORMS.get(name_of(module))
    if adds_one is None or module.weight.shape[0] > LONGEST_NORM:
        return None
    eps = module.eps if adds_one else module.variance_epsilon
    plain = module.forward

    def forward(x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.dtype != module.weight.dtype:
            return plain(x)
        return normed(x, module.weight, eps, adds_one)

    return forward if _is_same(module, forward, module.weight) else None


def _fused_mlp(module: Any) -> Forward | None:
    """Return a gated MLP's forward by a kernel; None if it is none that is known."""
    if name_of(module) not in _MLPS:
        return None
    is_joined = hasattr(module, "gate_up_proj")
    activation = module.activation_fn if is_joined else module.act_fn
    is_silu = _ACTIVATIONS.get(type(activation).__name__)
    if is_silu is None:
        return None
    plain = module.forward

    def forward(x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return plain(x)
        if is_joined:
            gates, ups = module.gate_up_proj(x).chunk(2, dim=-1)
        else:
            gates, ups = module.gate_proj(x), module.up_proj(x)
        return module.down_proj(gated(gates, ups, is_silu))

    first = module.gate_up_proj if is_joined else module.gate_proj
    return forward if _is_same(module, forward, first.weight) else None


def _is_same(module: nn.Module, by: Forward, weight: Tensor) -> bool:
    """Return whether two forwards agree on random rows as long as a weight's last dimension."""
    if weight.is_meta or not weight.is_floating_point():
        return weight.is_meta
    x = random(weight, 1, _ROWS, weight.shape[-1])
    return agree([module.forward(x)], lambda: [by(x)], name_of(module))

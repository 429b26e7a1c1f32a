"""Puts kernels in the place of a base's norms, rotations and gates, and takes them out again.

Only modules of transformers that are known to compute these, by their classes' names; each is
compared with its own forward on random rows before it is replaced. Where a gradient is wanted, or
rows are of another type, a module's own forward runs. transformers' hooks for kernels do nothing
without the package `kernels`, and with it take kernels from a hub, so modules are patched.

The rotation is a function of a model's module, which all models of one type in a process share; its
replacement calls the function itself for what the kernel does not take.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from server.gpu_kernels.rows import LONGEST_NORM, can_rotate, gated, normed, rotated

_LOG = logging.getLogger("overtone.kernels")
_FAMILIES = ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen2Moe", "Qwen3", "Qwen3Moe", "Phi3")
_GEMMAS = ("Gemma", "Gemma2", "Gemma3")
#: Name of a norm's class -> whether one is added to its weight.
_NORMS = {f"{name}RMSNorm": False for name in _FAMILIES} | {
    f"{name}RMSNorm": True for name in _GEMMAS
}
_MLPS = {f"{name}MLP" for name in (*_FAMILIES, *_GEMMAS)}
#: Name of an activation's class -> whether it is SiLU.
_ACTIVATIONS = {"SiLUActivation": True, "SiLU": True, "GELUTanh": False}
_ROTATION = "apply_rotary_pos_emb"
#: Of random rows and heads; roundings by which results may differ.
_ROWS, _DIM, _ROUNDINGS = 3, 32, 4

#: (q, k, cos, sin, the dimension of heads in q and k) -> q and k, rotated.
Rotation = Callable[..., tuple[Tensor, Tensor]]


@dataclass
class Fusion:
    """What was replaced; `undo` gives the model back."""

    num_norms: int = 0
    num_gates: int = 0
    num_rotations: int = 0
    _undone: list[Callable[[], None]] = field(default_factory=list)

    def undo(self) -> None:
        """Put everything back; safe to call twice."""
        while self._undone:
            self._undone.pop()()

    def replace(self, owner: Any, name: str, by: Any) -> None:
        """Give an owner another attribute, until `undo`."""
        own, before = name in vars(owner), getattr(owner, name)
        setattr(owner, name, by)
        undo = (lambda: setattr(owner, name, before)) if own else (lambda: delattr(owner, name))
        self._undone.append(undo)


@torch.inference_mode()
def fuse(model: nn.Module) -> Fusion:
    """Let kernels compute what they can of a model on a device where they run."""
    fusion = Fusion()
    for module in model.modules():
        if (by := _fused_norm(module)) and _is_same(module, by, module.weight):
            fusion.replace(module, "forward", by)
            fusion.num_norms += 1
        elif (by := _fused_mlp(module)) and _is_same(module, by, _first_weight(module)):
            fusion.replace(module, "forward", by)
            fusion.num_gates += 1
    for source in _sources(model):
        plain = getattr(source, _ROTATION)
        by = _fused_rotation(plain, model.device.type)
        if _turns_alike(plain, by, next(model.parameters())):
            fusion.replace(source, _ROTATION, by)
            fusion.num_rotations += 1
    return fusion


def _name(module: nn.Module) -> str:
    kind = type(module)
    return kind.__name__ if kind.__module__.startswith("transformers.") else ""


def _fused_norm(module: Any) -> Callable[[Tensor], Tensor] | None:
    """Return a norm's forward by a kernel; None if it is no norm that is known."""
    adds_one = _NORMS.get(_name(module))
    if adds_one is None or module.weight.shape[0] > LONGEST_NORM:
        return None
    eps = module.eps if adds_one else module.variance_epsilon
    plain = module.forward

    def forward(x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.dtype != module.weight.dtype:
            return plain(x)
        return normed(x, module.weight, eps, adds_one)

    return forward


def _fused_mlp(module: Any) -> Callable[[Tensor], Tensor] | None:
    """Return a gated MLP's forward by a kernel; None if it is none that is known."""
    if _name(module) not in _MLPS:
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

    return forward


def _first_weight(mlp: Any) -> Tensor:
    first = mlp.gate_up_proj if hasattr(mlp, "gate_up_proj") else mlp.gate_proj
    weight: Tensor = first.weight
    return weight


def _is_same(module: nn.Module, by: Callable[[Tensor], Tensor], weight: Tensor) -> bool:
    """Return whether two forwards agree on random rows as long as a weight's last dimension."""
    if weight.is_meta:
        return True
    if not weight.is_floating_point():
        return False
    x = _random(weight, 1, _ROWS, weight.shape[-1])
    return _agree([module.forward(x)], lambda: [by(x)], _name(module))


def _sources(model: nn.Module) -> Iterator[Any]:
    """Yield the modules of source code of known types with attention that rotates."""
    known = {f"{name}Attention" for name in (*_FAMILIES, *_GEMMAS)}
    names = {type(one).__module__: None for one in model.modules() if _name(one) in known}
    yield from (sys.modules[name] for name in names if hasattr(sys.modules[name], _ROTATION))


def _fused_rotation(plain: Rotation, device_type: str) -> Rotation:
    """Return a rotation by a kernel of what it takes, by the plain way of all else."""

    def rotation(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        is_own = q.device.type == device_type and not torch.is_grad_enabled()
        if is_own and unsqueeze_dim == 1 and can_rotate(q, k, cos, sin):
            return rotated(q, k, cos, sin)
        return plain(q, k, cos, sin, unsqueeze_dim)

    return rotation


def _turns_alike(plain: Rotation, by: Rotation, weight: Tensor) -> bool:
    """Return whether two rotations agree on random heads and angles."""
    if weight.is_meta:
        return True
    q, k = (_random(weight, 1, heads, _ROWS, _DIM) for heads in (4, 2))
    half = _random(weight, 1, _ROWS, _DIM // 2).float()
    cos, sin = (torch.cat([x, x], dim=-1).to(weight.dtype) for x in (half.cos(), half.sin()))
    return _agree(plain(q, k, cos, sin), lambda: by(q, k, cos, sin), _ROTATION)


def _random(like: Tensor, *shape: int) -> Tensor:
    return torch.randn(*shape, device=like.device).to(like.dtype)


def _agree(expected: Iterable[Tensor], by: Callable[[], Iterable[Tensor]], name: str) -> bool:
    """Return whether results are the expected ones, but for roundings."""
    try:
        pairs = list(zip(expected, by(), strict=True))
    except Exception as error:  # a compiler's and a driver's have no common type
        _LOG.info("no kernel for %s on this device (%s)", name, error)
        return False
    for true, got in pairs:
        allowed = _ROUNDINGS * torch.finfo(true.dtype).eps * true.float().norm()
        if got.dtype != true.dtype or not (got.float() - true.float()).norm() <= allowed:
            _LOG.warning("the kernel for %s is not used: it computes something else", name)
            return False
    return True

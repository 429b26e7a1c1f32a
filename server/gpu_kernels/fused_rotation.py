"""Attention of known types with rotations by a kernel.

A rotation is a function that a type's attention calls by a global name. An attention module gets
its own forward again, with the name standing for the kernel; no other model sees it.
"""

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from server.gpu_kernels.module_check import KNOWN, agree, name_of, random
from server.gpu_kernels.rows import can_rotate, rotated

_KNOWN = {f"{name}Attention" for name in KNOWN}
_ROTATION = "apply_rotary_pos_emb"
_ROWS, _DIM = 3, 32

#: (q, k, cos, sin, the dimension of heads in q and k) -> q and k, rotated.
Rotation = Callable[..., tuple[Tensor, Tensor]]


def fused_attention(module: nn.Module) -> Callable[..., Any] | None:
    """Return an attention's forward that rotates by a kernel; None if it is none that is known."""
    own = type(module).forward
    is_plain = isinstance(own, FunctionType) and _ROTATION in own.__code__.co_names
    if name_of(module) not in _KNOWN or not is_plain or "forward" in vars(module):
        return None
    plain = own.__globals__[_ROTATION]
    by = _fused(plain)
    if not _turns_alike(plain, by, next(module.parameters())):
        return None
    names = {**own.__globals__, _ROTATION: by}
    made = FunctionType(own.__code__, names, own.__name__, own.__defaults__, own.__closure__)
    made.__kwdefaults__ = own.__kwdefaults__
    return MethodType(made, module)


def _fused(plain: Rotation) -> Rotation:
    """Return a rotation by a kernel of what it takes, by the plain way of all else."""

    def rotation(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        takes = unsqueeze_dim == 1 and not torch.is_grad_enabled()
        if takes and can_rotate(q, k, cos, sin):
            return rotated(q, k, cos, sin)
        return plain(q, k, cos, sin, unsqueeze_dim)

    return rotation


def _turns_alike(plain: Rotation, by: Rotation, weight: Tensor) -> bool:
    """Return whether two rotations agree on random heads and angles of a weight's type."""
    if weight.is_meta or not weight.is_floating_point():
        return weight.is_meta
    q, k = (random(weight, 1, heads, _ROWS, _DIM) for heads in (4, 2))
    half = random(weight, 1, _ROWS, _DIM // 2).float()
    cos, sin = (torch.cat([x, x], dim=-1).to(weight.dtype) for x in (half.cos(), half.sin()))
    return agree(plain(q, k, cos, sin), lambda: by(q, k, cos, sin), _ROTATION)

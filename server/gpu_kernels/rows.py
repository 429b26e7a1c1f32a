"""Launches of kernels that work on each row for itself."""

import torch
from torch import Tensor

from adapters_core.gpu_kernels.running import launch
from server.gpu_kernels.row_kernels import add_update, gate, rms_norm, rotate, store

#: Numbers that a program takes at least, where rows are short.
_TILE = 1024
#: Longer rows take more registers than there are.
LONGEST_NORM = 16384
_HEADS, _COLS = 8, 1024


def normed(x: Tensor, weight: Tensor, eps: float, adds_one: bool) -> Tensor:
    """Return x `[..., n]` over its root mean square, times the weight `[n]`: one launch.

    Args:
        x: to be normed, contiguous or copied.
        weight: of x's dtype.
        eps: added to the mean square.
        adds_one: to the weight; only the product is rounded then, else the normed x as well.
    """
    size = weight.shape[0]
    rows = x.reshape(-1, size).contiguous()
    out = rows.new_empty(rows.shape)
    wide = _next_power(size)
    each = max(1, _TILE // wide)
    launch(
        rms_norm,
        (-(-len(rows) // each),),
        rows.nbytes + out.nbytes + weight.nbytes,
        x=rows,
        weight=weight,
        out=out,
        num_rows=len(rows),
        eps=eps,
        SIZE=size,
        WIDE=wide,
        ROWS=each,
        ADDS_ONE=adds_one,
        num_warps=32 if wide > 4096 else max(4, wide // 512),
    )
    return out.view(x.shape)


def can_rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Return whether `rotated` takes these."""
    rows, dim = q.shape[2], q.shape[-1]
    heads = [x.shape[0] == 1 and x.shape[2:] == (rows, dim) and x.stride(3) == 1 for x in (q, k)]
    angles = [x.shape[:-1] == (1, rows) and x.is_contiguous() for x in (cos, sin)]
    fits = cos.shape[-1] == sin.shape[-1] <= dim and cos.shape[-1] % 2 == 0
    return all(heads) and all(angles) and fits and q.dtype == k.dtype == cos.dtype == sin.dtype


def rotated(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return q and k `[1, heads, T, d]` with the first r numbers of heads rotated: one launch.

    What comes back is contiguous as `[1, T, heads, d]`.

    Args:
        q: of any strides but the last, 1.
        k: so, too.
        cos: `[1, T, r]`, contiguous, of q's dtype; r is even.
        sin: so, too.
    """
    rows, dim, half = q.shape[2], q.shape[3], cos.shape[2] // 2
    q_heads, k_heads = q.shape[1], k.shape[1]
    q_out, k_out = (x.new_empty(rows, x.shape[1], dim) for x in (q, k))
    q_parts, k_parts = (-(-heads // _HEADS) for heads in (q_heads, k_heads))
    launch(
        rotate,
        (rows, q_parts + k_parts),
        2 * (q_out.nbytes + k_out.nbytes) + cos.nbytes + sin.nbytes,
        q=q,
        k=k,
        q_out=q_out,
        k_out=k_out,
        cos=cos,
        sin=sin,
        q_row=q.stride(2),
        q_head=q.stride(1),
        k_row=k.stride(2),
        k_head=k.stride(1),
        Q_HEADS=q_heads,
        K_HEADS=k_heads,
        Q_PARTS=q_parts,
        HEADS=_HEADS,
        DIM=dim,
        HALF=half,
        WIDE=_next_power(half),
        REST=_next_power(dim - 2 * half) if dim > 2 * half else 0,
    )
    return q_out.transpose(0, 1)[None], k_out.transpose(0, 1)[None]


def gated(gates: Tensor, ups: Tensor, is_silu: bool) -> Tensor:
    """Return `[..., n]`, ups times SiLU of gates, or times their GELU by tanh: one launch.

    Args:
        gates: `[..., n]`; a slice of longer rows is read where it stands.
        ups: of the same shape and dtype.
        is_silu: else GELU.
    """
    size = gates.shape[-1]
    given = [x.flatten(0, -2) for x in (gates, ups)]
    g, u = (x if x.stride(1) == 1 else x.contiguous() for x in given)
    out = g.new_empty(g.shape)
    launch(
        gate,
        (len(g), -(-size // _COLS)),
        3 * out.nbytes,
        gates=g,
        ups=u,
        out=out,
        gate_row=g.stride(0),
        up_row=u.stride(0),
        SIZE=size,
        BLOCK=_COLS,
        IS_SILU=is_silu,
    )
    return out.view(gates.shape)


def summed(residual: Tensor, answer: Tensor, update: Tensor) -> Tensor:
    """Return the sum of three tensors of equal numbers, `[..., n]`, rounded once: one launch.

    Args:
        residual: its shape is the result's.
        answer: of the same shape and dtype.
        update: `[T, n]`, of the same dtype.
    """
    parts = [x.contiguous() for x in (residual, answer, update)]
    out = torch.empty_like(parts[0])
    launch(
        add_update,
        (-(-out.numel() // _COLS),),
        4 * out.nbytes,
        residual=parts[0],
        answer=parts[1],
        update=parts[2],
        out=out,
        size=out.numel(),
        BLOCK=_COLS,
    )
    return out


def stored(k: Tensor, v: Tensor, keys: Tensor, values: Tensor, cells: Tensor) -> None:
    """Copy rows to cells of a cache: one launch. Where a cell is named twice, any row may stay.

    Args:
        k: `[T, kv_heads, dim_k]`, of any strides.
        v: `[T, kv_heads, dim_v]`, so, too.
        keys: `[cells, kv_heads, dim_k]`, contiguous.
        values: `[cells, kv_heads, dim_v]`, contiguous.
        cells: int64 `[T]`, where each row goes.
    """
    k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (k, v))
    rows, heads, dim_k = k.shape
    dim_v = v.shape[2]
    launch(
        store,
        (rows, -(-heads // _HEADS)),
        2 * (k.nbytes + v.nbytes) + cells.nbytes,
        k=k,
        v=v,
        keys=keys,
        values=values,
        cells=cells,
        k_row=k.stride(0),
        k_head=k.stride(1),
        v_row=v.stride(0),
        v_head=v.stride(1),
        NUM=heads,
        HEADS=_HEADS,
        DIM_K=dim_k,
        DIM_V=dim_v,
        WIDE_K=_next_power(dim_k),
        WIDE_V=_next_power(dim_v),
    )


def _next_power(count: int) -> int:
    return 1 << (count - 1).bit_length()

"""Launches of attention of single tokens over a paged cache; nothing is read beyond a sequence."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters_core.gpu_kernels.running import launch
from server.gpu_kernels.decode_attention import attend, combine_splits

#: Keys of a split, as long as a cache of `_MOST_SPLITS` of them is enough; else they are longer.
_SPLIT, _MOST_SPLITS = 256, 64
#: Query heads of a program, and splits that are added up at a time.
_HEADS, _SIDE = 16, 16
#: Keys of a block, and bytes of their heads: more of them spill registers.
_BLOCK, _BLOCK_BYTES = 64, 1 << 14
#: Longer heads take more registers than there are.
_LONGEST_HEAD = 256
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class BlockTable:
    """Where the keys of each sequence lie.

    Args:
        pages: int32 `[N, P]`.
        lengths: int32 `[N]`, tokens in the cache.
        page_size: tokens a page.
    """

    pages: Tensor
    lengths: Tensor
    page_size: int

    @property
    def split_size(self) -> int:
        """Return how many keys a split has; it follows from P alone, as `num_splits` does."""
        keys = _next_power(self.pages.shape[1] * self.page_size)
        return max(_SPLIT, keys // _MOST_SPLITS)

    @property
    def num_splits(self) -> int:
        """Return into how many parts the keys are split."""
        return -(-self.pages.shape[1] * self.page_size // self.split_size)


@dataclass(frozen=True)
class Weighing:
    """How scores become weights.

    Args:
        scale: of the products.
        window: how many tokens a row sees, its own among them; 0: all.
        chunk: a row sees from the last multiple of it on; 0: all.
        softcap: scores are `softcap * tanh(score / softcap)`; None: as they are.
        sinks: `[heads]`, scores without a value.
    """

    scale: float
    window: int = 0
    chunk: int = 0
    softcap: float | None = None
    sinks: Tensor | None = None


def takes(q: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Return whether the kernels are made for such heads."""
    is_same = q.dtype == keys.dtype == values.dtype
    return is_same and q.dtype in _DTYPES and max(q.shape[2], values.shape[2]) <= _LONGEST_HEAD


def attend_pages(
    q: Tensor, keys: Tensor, values: Tensor, table: BlockTable, weighing: Weighing
) -> Tensor:
    """Return `[N, heads, dim_v]`, of q's dtype, for the last token of each sequence.

    One launch where one split is enough, else two.

    Args:
        q: `[N, heads, dim_k]`.
        keys: `[cells, kv_heads, dim_k]`, contiguous.
        values: `[cells, kv_heads, dim_v]`, contiguous.
        table: of the sequences; a sequence of length 0 gets zeros.
        weighing: of all heads.
    """
    q = q if q.stride(2) == 1 else q.contiguous()
    (rows, heads, dim_k), (_, kv_heads, dim_v) = q.shape, values.shape
    splits, split_size = table.num_splits, table.split_size
    out = q.new_empty(rows, heads, dim_v)
    is_whole = splits == 1
    partial = (rows, heads, 0 if is_whole else splits)
    sums = torch.empty(*partial, dim_v, dtype=torch.float32, device=q.device)
    scores = torch.empty(*partial, 2, dtype=torch.float32, device=q.device)
    tiles = -(-(heads // kv_heads) // _HEADS)
    sinks = weighing.sinks
    head_bytes = _width(max(dim_k, dim_v)) * q.element_size()
    common: dict[str, Any] = {
        "sinks": q if sinks is None else sinks,
        "out": out,
        "sums": sums,
        "scores": scores,
        "lengths": table.lengths,
        "num_splits": splits,
        "DIM_V": dim_v,
        "WIDE_V": _width(dim_v),
        "SPLIT": split_size,
        "WINDOW": weighing.window,
        "CHUNK": weighing.chunk,
        "HAS_SINKS": sinks is not None,
    }
    launch(
        attend,
        (rows, kv_heads * tiles, splits),
        q.nbytes + _read_bytes(keys, values, table, weighing) + sums.nbytes + scores.nbytes,
        q=q,
        keys=keys,
        values=values,
        pages=table.pages,
        num_pages=table.pages.shape[1],
        q_row=q.stride(0),
        q_head=q.stride(1),
        scale=weighing.scale,
        softcap=weighing.softcap or 1.0,
        KV_HEADS=kv_heads,
        GROUP=heads // kv_heads,
        TILES=tiles,
        HEADS=_HEADS,
        DIM_K=dim_k,
        WIDE_K=_width(dim_k),
        PAGE=table.page_size,
        BLOCK=min(_BLOCK, _BLOCK_BYTES // head_bytes),
        HAS_CAP=weighing.softcap is not None,
        IS_WHOLE=is_whole,
        IS_WIDENED=q.device.type == "cpu",
        num_warps=8 if head_bytes >= 512 and q.element_size() == 4 else 4,
        **common,
    )
    if not is_whole:
        launch(
            combine_splits,
            (rows, heads),
            sums.nbytes + scores.nbytes + out.nbytes,
            heads=heads,
            MOST_SPLITS=max(_SIDE, _next_power(splits)),
            SIDE=_SIDE,
            **common,
        )
    return out


def _read_bytes(keys: Tensor, values: Tensor, table: BlockTable, weighing: Weighing) -> int:
    """Return the bytes of keys and values that are read if all sequences are as long as can be."""
    rows, pages = table.pages.shape
    limits = [size for size in (weighing.window, weighing.chunk) if size]
    seen = min([pages * table.page_size, *limits])
    return rows * seen * (keys[0].nbytes + values[0].nbytes)


def _width(size: int) -> int:
    """Return the power of two that a dimension is padded to: tensor cores need sixteen."""
    return max(_HEADS, _next_power(size))


def _next_power(count: int) -> int:
    return 1 << (count - 1).bit_length()

"""Kernels that merge sums of outer products: golden + sum_k u_k v_k^T, in one pass.

A program makes a tile of the weight, rounded once. It multiplies what of the outer products falls
into its tile: all of LoRA's, or of WaveletFT's the few whose atoms reach the tile.
"""

import triton
import triton.language as tl


@triton.jit
def add_product(
    golden,  # [M, N]
    out,  # [M, N]
    up,  # [M, RANK]
    down,  # [RANK, N]
    scale,
    num_rows,
    num_cols,
    golden_row,
    golden_col,
    out_row,
    out_col,
    RANK: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    p = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    q = tl.program_id(0).to(tl.int64) * COLS + tl.arange(0, COLS)[None, :]
    update = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, RANK, BLOCK):
        left = start + tl.arange(0, BLOCK)[None, :]
        top = start + tl.arange(0, BLOCK)[:, None]
        u = tl.load(up + p * RANK + left, mask=(p < num_rows) & (left < RANK), other=0.0)
        v = tl.load(down + top * num_cols + q, mask=(q < num_cols) & (top < RANK), other=0.0)
        update += tl.dot(u.to(tl.float32), v.to(tl.float32), input_precision="tf32x3")
    inside = (p < num_rows) & (q < num_cols)
    old = tl.load(golden + p * golden_row + q * golden_col, mask=inside, other=0.0)
    new = old.to(tl.float32) + scale * update
    tl.store(out + p * out_row + q * out_col, new.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _numbers(atoms, filters, number, position, inside):
    """Return what atoms hold at positions of the line; zero outside of them.

    `atoms` int32 `[n, 3]`: first position, length, and where its numbers begin in the filters.
    """
    tap = position - tl.load(atoms + 3 * number, mask=inside, other=0)
    length = tl.load(atoms + 3 * number + 1, mask=inside, other=0)
    begin = tl.load(atoms + 3 * number + 2, mask=inside, other=0)
    return tl.load(filters + begin + tap, mask=(tap >= 0) & (tap < length), other=0.0)


@triton.jit
def add_atoms(
    golden,  # [M, N]
    out,  # [M, N]
    values,  # float32 [n]
    members,  # int32 [K], the coefficients whose atoms reach a tile, tile by tile
    starts,  # int32 [tiles + 1], row-major
    row_atoms,  # int32 [n, 3]
    col_atoms,
    filters,  # float32
    num_rows,
    num_cols,
    golden_row,
    golden_col,
    out_row,
    out_col,
    SIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    p = tl.program_id(1) * SIDE + tl.arange(0, SIDE)[:, None]
    q = tl.program_id(0) * SIDE + tl.arange(0, SIDE)[None, :]
    update = tl.zeros((SIDE, SIDE), tl.float32)
    begin = tl.load(starts + tile)
    stop = tl.load(starts + tile + 1)
    while begin < stop:
        left = begin + tl.arange(0, BLOCK)[None, :]
        top = begin + tl.arange(0, BLOCK)[:, None]
        number = tl.load(members + left, mask=left < stop, other=0)
        value = tl.load(values + number, mask=left < stop, other=0.0)
        u = value * _numbers(row_atoms, filters, number, p, left < stop)
        number = tl.load(members + top, mask=top < stop, other=0)
        v = _numbers(col_atoms, filters, number, q, top < stop)
        update += tl.dot(u, v, input_precision="tf32x3")
        begin += BLOCK
    inside = (p < num_rows) & (q < num_cols)
    p, q = p.to(tl.int64), q.to(tl.int64)
    old = tl.load(golden + p * golden_row + q * golden_col, mask=inside, other=0.0)
    new = (old.to(tl.float32) + update).to(out.dtype.element_ty)
    tl.store(out + p * out_row + q * out_col, new, mask=inside)

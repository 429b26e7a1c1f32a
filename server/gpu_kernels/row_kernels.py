"""Kernels of what a base does between its products, row by row: norms, rotations, gates, a cache.

Results are rounded to the rows' type wherever the modules they stand for round them. What a row
gets does not depend on other rows.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_rows"])
def rms_norm(
    x,  # [num_rows, SIZE]
    weight,  # [SIZE]
    out,
    num_rows,
    eps,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,  # the next power of two
    ROWS: tl.constexpr,
    ADDS_ONE: tl.constexpr,  # to the weight, before anything is rounded
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, WIDE)
    inside = (row < num_rows)[:, None] & (col < SIZE)[None, :]
    cell = row[:, None] * SIZE + col[None, :]
    value = tl.load(x + cell, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value * value, axis=1) / SIZE
    value = value * tl.rsqrt(mean + eps)[:, None]
    gain = tl.load(weight + col, mask=col < SIZE, other=0.0).to(tl.float32)
    if ADDS_ONE:
        gain = gain + 1.0
    else:
        value = value.to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + cell, (value * gain[None, :]).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rotate_heads(
    x,  # the row's own heads
    out,
    cos,  # the row's own, [2 HALF]
    sin,
    head_stride,
    first,
    NUM: tl.constexpr,  # heads
    HEADS: tl.constexpr,  # at a time
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    WIDE: tl.constexpr,
    REST: tl.constexpr,
):
    """Store rotated heads; numbers behind the first 2 HALF are copied."""
    head = first + tl.arange(0, HEADS)
    pair = tl.arange(0, WIDE)
    inside = (head < NUM)[:, None] & (pair < HALF)[None, :]
    read = x + head[:, None] * head_stride + pair[None, :]
    write = out + head[:, None] * DIM + pair[None, :]
    kind = out.dtype.element_ty
    left = tl.load(read, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(read + HALF, mask=inside, other=0.0).to(tl.float32)
    for half in tl.static_range(2):
        angle = pair + half * HALF
        cosine = tl.load(cos + angle, mask=pair < HALF, other=0.0).to(tl.float32)[None, :]
        sine = tl.load(sin + angle, mask=pair < HALF, other=0.0).to(tl.float32)[None, :]
        if half == 0:
            kept = (left * cosine).to(kind)
            turned = (-right * sine).to(kind)
        else:
            kept = (right * cosine).to(kind)
            turned = (left * sine).to(kind)
        summed = kept.to(tl.float32) + turned.to(tl.float32)
        tl.store(write + half * HALF, summed.to(kind), mask=inside)
    if REST > 0:
        over = tl.arange(0, REST)
        inside = (head < NUM)[:, None] & (over < DIM - 2 * HALF)[None, :]
        read = x + head[:, None] * head_stride + 2 * HALF + over[None, :]
        write = out + head[:, None] * DIM + 2 * HALF + over[None, :]
        tl.store(write, tl.load(read, mask=inside, other=0.0), mask=inside)


@triton.jit
def rotate(
    q,  # [T, Q_HEADS, DIM], by strides
    k,  # [T, K_HEADS, DIM], by strides
    q_out,  # contiguous
    k_out,
    cos,  # [T, 2 HALF]
    sin,
    q_row,
    q_head,
    k_row,
    k_head,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    Q_PARTS: tl.constexpr,  # programs of q's heads of a row
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    WIDE: tl.constexpr,
    REST: tl.constexpr,  # 0, or a power of two of numbers that are not rotated
):
    t = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    own_cos = cos + t * 2 * HALF
    own_sin = sin + t * 2 * HALF
    if part < Q_PARTS:
        own = q + t * q_row
        to = q_out + t * Q_HEADS * DIM
        first = part * HEADS
        _rotate_heads(
            own, to, own_cos, own_sin, q_head, first, Q_HEADS, HEADS, DIM, HALF, WIDE, REST
        )
    else:
        own = k + t * k_row
        to = k_out + t * K_HEADS * DIM
        first = (part - Q_PARTS) * HEADS
        _rotate_heads(
            own, to, own_cos, own_sin, k_head, first, K_HEADS, HEADS, DIM, HALF, WIDE, REST
        )


@triton.jit(do_not_specialize=["size"])
def add_update(
    residual,  # [size]
    answer,
    update,
    out,
    size,
    BLOCK: tl.constexpr,
):
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < size
    changed = tl.load(answer + cell, mask=inside, other=0.0).to(tl.float32)
    changed += tl.load(update + cell, mask=inside, other=0.0).to(tl.float32)
    changed += tl.load(residual + cell, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + cell, changed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate(
    gates,  # [T, SIZE], the last stride is 1
    ups,
    out,  # contiguous
    gate_row,  # strides
    up_row,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    IS_SILU: tl.constexpr,  # else GELU by a hyperbolic tangent
):
    t = tl.program_id(0).to(tl.int64)
    col = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = col < SIZE
    x = tl.load(gates + t * gate_row + col, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(ups + t * up_row + col, mask=inside, other=0.0).to(tl.float32)
    turn = x
    if not IS_SILU:
        # (1 + tanh(z)) / 2 is 1 / (1 + e^(-2 z)).
        turn = 1.5957691216057308 * (x + 0.044715 * x * x * x)
    small = tl.exp(-tl.abs(turn))
    active = x * tl.where(turn < 0.0, small, 1.0) / (1.0 + small)
    active = active.to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + t * SIZE + col, (active * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _copy_heads(
    x,
    out,
    head_stride,
    first,
    NUM: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
):
    head = first + tl.arange(0, HEADS)
    dim = tl.arange(0, WIDE)
    inside = (head < NUM)[:, None] & (dim < DIM)[None, :]
    read = x + head[:, None] * head_stride + dim[None, :]
    write = out + head[:, None] * DIM + dim[None, :]
    tl.store(write, tl.load(read, mask=inside, other=0.0), mask=inside)


@triton.jit
def store(
    k,  # [T, NUM, DIM_K], by strides
    v,  # [T, NUM, DIM_V], by strides
    keys,  # [cells, NUM, DIM_K], contiguous
    values,
    cells,  # int64 [T]
    k_row,
    k_head,
    v_row,
    v_head,
    NUM: tl.constexpr,  # heads
    HEADS: tl.constexpr,  # at a time
    DIM_K: tl.constexpr,
    DIM_V: tl.constexpr,
    WIDE_K: tl.constexpr,  # the next power of two
    WIDE_V: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * HEADS
    cell = tl.load(cells + t)
    _copy_heads(k + t * k_row, keys + cell * NUM * DIM_K, k_head, first, NUM, HEADS, DIM_K, WIDE_K)
    _copy_heads(
        v + t * v_row, values + cell * NUM * DIM_V, v_head, first, NUM, HEADS, DIM_V, WIDE_V
    )

"""Kernels of one query row a sequence over a paged cache, split over its keys.

    attend           of one split: highest score m, sum of e^(s - m), and sum of e^(s - m) v
    combine_splits   out = sum_i e^(m_i - m) out_i / sum_i e^(m_i - m) sum_i, m the highest m_i

Splits, and blocks of keys in them, begin at multiples of their size from the sequence's first
token, and are summed in order: what a row has does not depend on other rows. Splits that a row does
not see add nothing. A sink is one more score without a value. Dao et al., "Flash-Decoding for
long-context inference", 2023.

Tiles have at least 16 query heads, which tensor cores need; those beyond a group are masked.
"""

import triton
import triton.language as tl


@triton.jit
def _first_seen(length, WINDOW: tl.constexpr, CHUNK: tl.constexpr):
    """Return the first token that the last one of a sequence sees."""
    first = length * 0
    if WINDOW > 0:
        first = tl.maximum(first, length - WINDOW)
    if CHUNK > 0:
        first = tl.maximum(first, tl.maximum(length - 1, 0) // CHUNK * CHUNK)
    return first


@triton.jit
def _product(a, b, IS_WIDENED: tl.constexpr):
    if IS_WIDENED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def _sees(part, first, length, SPLIT: tl.constexpr):
    """Return whether a row sees any key of a split."""
    return (part * SPLIT < length) & ((part + 1) * SPLIT > first)


@triton.jit(do_not_specialize=["num_pages", "num_splits"])
def attend(
    q,  # [N, heads, DIM_K], the last dimension's stride is 1
    keys,  # [cells, KV_HEADS, DIM_K]
    values,  # [cells, KV_HEADS, DIM_V]
    pages,  # int32 [N, num_pages]
    lengths,  # int32 [N]
    sinks,  # [heads]
    out,  # [N, heads, DIM_V]; IS_WHOLE
    sums,  # float32 [N, heads, num_splits, DIM_V]; else
    scores,  # float32 [N, heads, num_splits, 2], highest score and sum of weights; else
    num_pages,
    num_splits,
    q_row,  # strides of q
    q_head,
    scale,
    softcap,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads of a key head
    TILES: tl.constexpr,  # of HEADS query heads in a group
    HEADS: tl.constexpr,
    DIM_K: tl.constexpr,
    DIM_V: tl.constexpr,
    WIDE_K: tl.constexpr,  # the next power of two
    WIDE_V: tl.constexpr,
    PAGE: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    IS_WHOLE: tl.constexpr,  # one split is all there is
    IS_WIDENED: tl.constexpr,  # operands of products: the interpreter has none of bfloat16
):
    n = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1) // TILES
    part = tl.program_id(2)
    length = tl.load(lengths + n)
    first = _first_seen(length, WINDOW, CHUNK)
    start = part * SPLIT
    is_seen = _sees(part, first, length, SPLIT)
    if IS_WHOLE:
        is_seen = start == 0
    if is_seen:
        in_group = (tl.program_id(1) % TILES) * HEADS + tl.arange(0, HEADS)
        is_head = in_group < GROUP
        head = kv_head * GROUP + in_group
        dim_k = tl.arange(0, WIDE_K)
        dim_v = tl.arange(0, WIDE_V)
        query = tl.load(
            q + n * q_row + head[:, None] * q_head + dim_k[None, :],
            mask=is_head[:, None] & (dim_k < DIM_K)[None, :],
            other=0.0,
        )
        highest = tl.full((HEADS,), float("-inf"), tl.float32)
        total = tl.zeros((HEADS,), tl.float32)
        summed = tl.zeros((HEADS, WIDE_V), tl.float32)
        for step in range(0, SPLIT, BLOCK):
            position = start + step + tl.arange(0, BLOCK)
            seen = (position >= first) & (position < length)
            page = tl.load(pages + n * num_pages + position // PAGE, mask=seen, other=0)
            cell = (page.to(tl.int64) * PAGE + position % PAGE) * KV_HEADS + kv_head
            key = tl.load(
                keys + cell[None, :] * DIM_K + dim_k[:, None],
                mask=seen[None, :] & (dim_k < DIM_K)[:, None],
                other=0.0,
            )
            score = _product(query, key, IS_WIDENED) * scale
            if HAS_CAP:
                # The hyperbolic tangent of x is (1 - e^(-2 x)) / (1 + e^(-2 x)).
                small = tl.exp(-2.0 * tl.abs(score) / softcap)
                capped = softcap * (1.0 - small) / (1.0 + small)
                score = tl.where(score < 0.0, -capped, capped)
            score = tl.where(seen[None, :], score, float("-inf"))
            before = highest
            highest = tl.maximum(before, tl.max(score, axis=1))
            # Where no key was seen yet, minus infinity minus itself would be NaN.
            shift = tl.where(highest == float("-inf"), 0.0, highest)
            weight = tl.exp(score - shift[:, None])
            decay = tl.exp(before - shift)
            value = tl.load(
                values + cell[:, None] * DIM_V + dim_v[None, :],
                mask=seen[:, None] & (dim_v < DIM_V)[None, :],
                other=0.0,
            )
            total = total * decay + tl.sum(weight, axis=1)
            summed = summed * decay[:, None]
            summed += _product(weight.to(value.dtype), value, IS_WIDENED)
        row = n * KV_HEADS * GROUP + head
        if IS_WHOLE:
            if HAS_SINKS:
                sink = tl.load(sinks + head, mask=is_head, other=0.0).to(tl.float32)
                joined = tl.maximum(highest, sink)
                total = total * tl.exp(highest - joined) + tl.exp(sink - joined)
                summed = summed * tl.exp(highest - joined)[:, None]
            summed = summed / tl.where(total == 0.0, 1.0, total)[:, None]
            to = out + row[:, None] * DIM_V
        else:
            row = row * num_splits + part
            tl.store(scores + 2 * row, highest, mask=is_head)
            tl.store(scores + 2 * row + 1, total, mask=is_head)
            to = sums + row[:, None] * DIM_V
        tl.store(
            to + dim_v[None, :],
            summed.to(to.dtype.element_ty),
            mask=is_head[:, None] & (dim_v < DIM_V)[None, :],
        )


@triton.jit(do_not_specialize=["num_splits"])
def combine_splits(
    sums,  # of `attend`
    scores,
    lengths,
    sinks,
    out,  # [N, heads, DIM_V]
    heads,
    num_splits,
    DIM_V: tl.constexpr,
    WIDE_V: tl.constexpr,
    SPLIT: tl.constexpr,
    MOST_SPLITS: tl.constexpr,  # a power of two, whole tiles of SIDE
    SIDE: tl.constexpr,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    length = tl.load(lengths + n)
    first = _first_seen(length, WINDOW, CHUNK)
    row = (n * heads + head) * num_splits
    every = tl.arange(0, MOST_SPLITS)
    is_seen = (every < num_splits) & _sees(every, first, length, SPLIT)
    peaks = tl.load(scores + 2 * (row + every), mask=is_seen, other=float("-inf"))
    highest = tl.max(peaks, axis=0)
    if HAS_SINKS:
        sink = tl.load(sinks + head).to(tl.float32)
        highest = tl.maximum(highest, sink)
    highest = tl.where(highest == float("-inf"), 0.0, highest)
    dim = tl.arange(0, WIDE_V)
    total = highest * 0.0
    summed = tl.zeros((WIDE_V,), tl.float32)
    for start in range(0, MOST_SPLITS, SIDE):
        part = start + tl.arange(0, SIDE)
        is_in = (part < num_splits) & _sees(part, first, length, SPLIT)
        own = tl.load(scores + 2 * (row + part), mask=is_in, other=float("-inf"))
        weight = tl.exp(own - highest)
        total += tl.sum(
            weight * tl.load(scores + 2 * (row + part) + 1, mask=is_in, other=0.0), axis=0
        )
        value = tl.load(
            sums + (row + part)[:, None] * DIM_V + dim[None, :],
            mask=is_in[:, None] & (dim < DIM_V)[None, :],
            other=0.0,
        )
        summed += tl.sum(weight[:, None] * value, axis=0)
    if HAS_SINKS:
        total += tl.exp(sink - highest)
    summed = summed / tl.where(total == 0.0, 1.0, total)
    to = out + (n * heads + head) * DIM_V + dim
    tl.store(to, summed.to(out.dtype.element_ty), mask=dim < DIM_V)

"""Kernels that gather: rows through sparse matrices (sliced.py), and through diagonal ones.

    gather    out[t, i] = sum_e number[e] x[t, index[e]], with a factor of the row's slot if wanted
    stretch   out[t, i] = bank[slot, first + i] x[t, i]

Both write a result, or add to it. What is written for a row whose slot is 0 is zero.
"""

import triton
import triton.language as tl

from adapters_core.gpu_kernels.bank_rows import unit


@triton.jit
def gather(
    x,  # [T, N]
    out,  # [T, M]
    bank,  # [slots, width]
    slots,  # int64 [T]
    starts,  # and the rest of a `Sliced`
    lengths,
    index,
    numbers,
    factors,  # int32 [M], where a bank's row has each cell's factor; HAS_FACTORS
    width,
    row_size,  # of x, N or more
    size,  # M
    first,  # of the columns of the bank that `numbers` name; IS_OWN
    IS_OWN: tl.constexpr,
    HAS_FACTORS: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    cell = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < size
    slot = tl.load(slots + t)
    to = out + t * size + cell
    if slot != 0:
        line = x + t * row_size
        row = bank + slot * width
        entry = tl.load(starts + tl.program_id(1)) + tl.arange(0, BLOCK)
        left = tl.load(lengths + tl.program_id(1))
        sums = tl.zeros((BLOCK,), tl.float32)
        while left > 0:
            source = tl.load(index + entry)
            real = source >= 0
            number = tl.load(numbers + entry)
            if IS_OWN:
                number = tl.load(row + first + number, mask=real, other=0.0)
            read = tl.load(line + source, mask=real, other=0.0).to(tl.float32)
            sums += number.to(tl.float32) * read
            entry += BLOCK
            left -= 1
        if HAS_FACTORS:
            place = tl.load(factors + cell, mask=inside, other=0)
            sums *= tl.load(row + place, mask=inside, other=0.0).to(tl.float32)
        if HAS_FACTORS or IS_OWN:
            sums *= unit(bank, row, width)
        if ADDS:
            sums += tl.load(to, mask=inside, other=0.0).to(tl.float32)
        tl.store(to, sums.to(out.dtype.element_ty), mask=inside)
    elif not ADDS:
        tl.store(to, tl.zeros((BLOCK,), out.dtype.element_ty), mask=inside)


@triton.jit
def stretch(
    x,  # [T, M]
    out,  # [T, M]
    bank,  # [slots, width]
    slots,  # int64 [T]
    width,
    first,  # of the numbers in the bank's row
    SIZE: tl.constexpr,  # M
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    cell = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < SIZE
    slot = tl.load(slots + t)
    to = out + t * SIZE + cell
    if slot != 0:
        row = bank + slot * width
        number = tl.load(row + first + cell, mask=inside, other=0.0).to(tl.float32)
        read = tl.load(x + t * SIZE + cell, mask=inside, other=0.0).to(tl.float32)
        result = unit(bank, row, width) * number * read
        if ADDS:
            result += tl.load(to, mask=inside, other=0.0).to(tl.float32)
        tl.store(to, result.to(out.dtype.element_ty), mask=inside)
    elif not ADDS:
        tl.store(to, tl.zeros((BLOCK,), out.dtype.element_ty), mask=inside)

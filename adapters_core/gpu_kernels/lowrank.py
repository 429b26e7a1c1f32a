"""Kernels of updates by two thin matrices, each row through those of its own slot.

    narrow    hidden[t, k] = sum_i A_s[k, i] x[t, i]; once for all linears that see the same rows
    widen     y[t, o] += sum_k hidden[t, k] B_s[k, o], for one linear; or y[t, o] =

A program takes one row and reads the factors of the row's slot once. Where sixteen rows in a line
have the same slot, as those of a prompt do, the program of the first one takes them all, by matrix
products, and the others end at once. Programs of rows whose slot is 0 end at once, too, or
write zeros.

Factors are read in whichever precision the bank has; sums are taken in float32, in one order.
"""

import triton
import triton.language as tl

from adapters_core.gpu_kernels.bank_rows import unit


@triton.jit
def _are_alike(slots, t, slot, num_rows, ROWS: tl.constexpr):
    """Return whether the block of rows that holds t is whole and of one slot."""
    row = t // ROWS * ROWS + tl.arange(0, ROWS)
    others = tl.load(slots + row, mask=row < num_rows, other=-1)
    return tl.sum((others != slot).to(tl.int32)) == 0


@triton.jit(do_not_specialize=["num_rows"])  # or steps of some sizes would wait for the compiler
def narrow(
    x,  # [T, N]
    hidden,  # float32 [T, K]
    bank,  # [slots, width]
    slots,  # int64 [T]
    starts,  # int64 [K], where each rank's line of A begins in the bank's row
    width,
    num_rows,
    num_ranks,
    SIZE: tl.constexpr,
    ALIGN: tl.constexpr,  # divides SIZE and all starts
    RANKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * RANKS
    slot = tl.load(slots + t)
    if slot != 0:
        row_of_bank = bank + slot * width
        scale = unit(bank, row_of_bank, width)
        if _are_alike(slots, t, slot, num_rows, ROWS):
            if (t % ROWS == 0) & (first % ROWS == 0):
                rows = t + tl.arange(0, ROWS)
                k = first + tl.arange(0, ROWS)
                start = tl.load(starts + k, mask=k < num_ranks, other=0)
                start = tl.multiple_of(start, [ALIGN])
                sums = tl.zeros((ROWS, ROWS), tl.float32)
                for begin in range(0, SIZE, STEP):
                    i = begin + tl.arange(0, STEP)
                    inside = i < SIZE
                    lines = x + rows[:, None] * SIZE + i[None, :]
                    read = tl.load(lines, mask=inside[None, :], other=0.0).to(tl.float32)
                    cells = row_of_bank + start[None, :] + i[:, None]
                    mask = inside[:, None] & (k < num_ranks)[None, :]
                    down = tl.load(cells, mask=mask, other=0.0).to(tl.float32)
                    sums += tl.dot(read, down, input_precision="tf32x3")
                to = hidden + rows[:, None] * num_ranks + k[None, :]
                tl.store(to, scale * sums, mask=(k < num_ranks)[None, :])
        else:
            k = first + tl.arange(0, RANKS)
            start = tl.load(starts + k, mask=k < num_ranks, other=0)
            start = tl.multiple_of(start, [ALIGN])
            products = tl.zeros((RANKS, BLOCK), tl.float32)
            for begin in range(0, SIZE, BLOCK):
                i = begin + tl.arange(0, BLOCK)
                inside = i < SIZE
                read = tl.load(x + t * SIZE + i, mask=inside, other=0.0).to(tl.float32)
                cells = row_of_bank + start[:, None] + i[None, :]
                mask = inside[None, :] & (k < num_ranks)[:, None]
                down = tl.load(cells, mask=mask, other=0.0).to(tl.float32)
                products += down * read[None, :]
            to = hidden + t * num_ranks + k
            tl.store(to, scale * tl.sum(products, axis=1), mask=k < num_ranks)


@triton.jit(do_not_specialize=["num_rows"])
def widen(
    hidden,  # of `narrow`
    out,  # [T, M]
    bank,
    slots,
    width,
    num_rows,
    num_ranks,
    first,  # of this linear's ranks among the K
    start,  # where B begins in the bank's row
    RANK: tl.constexpr,  # of this linear
    SIZE: tl.constexpr,
    RANKS: tl.constexpr,
    ADDS: tl.constexpr,  # to what is there
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = o < SIZE
    slot = tl.load(slots + t)
    if slot != 0:
        row_of_bank = bank + slot * width
        scale = unit(bank, row_of_bank, width)
        up = row_of_bank + start
        if _are_alike(slots, t, slot, num_rows, ROWS):
            if t % ROWS == 0:
                rows = t + tl.arange(0, ROWS)
                sums = tl.zeros((ROWS, BLOCK), tl.float32)
                for begin in range(0, RANK, ROWS):
                    k = begin + tl.arange(0, ROWS)
                    lines = hidden + rows[:, None] * num_ranks + first + k[None, :]
                    read = tl.load(lines, mask=(k < RANK)[None, :], other=0.0)
                    mask = (k < RANK)[:, None] & inside[None, :]
                    cells = up + k[:, None] * SIZE + o[None, :]
                    factor = tl.load(cells, mask=mask, other=0.0).to(tl.float32)
                    sums += tl.dot(read, factor, input_precision="tf32x3")
                to = out + rows[:, None] * SIZE + o[None, :]
                mask = inside[None, :]
                update = scale * sums
                if ADDS:
                    update += tl.load(to, mask=mask, other=0.0).to(tl.float32)
                tl.store(to, update.to(out.dtype.element_ty), mask=mask)
        else:
            products = tl.zeros((RANKS, BLOCK), tl.float32)
            for begin in range(0, RANK, RANKS):
                k = begin + tl.arange(0, RANKS)
                read = tl.load(hidden + t * num_ranks + first + k, mask=k < RANK, other=0.0)
                mask = (k < RANK)[:, None] & inside[None, :]
                cells = up + k[:, None] * SIZE + o[None, :]
                factor = tl.load(cells, mask=mask, other=0.0).to(tl.float32)
                products += read[:, None] * factor
            to = out + t * SIZE + o
            update = scale * tl.sum(products, axis=0)
            if ADDS:
                update += tl.load(to, mask=inside, other=0.0).to(tl.float32)
            tl.store(to, update.to(out.dtype.element_ty), mask=inside)
    elif not ADDS:
        zeros = tl.zeros((BLOCK,), out.dtype.element_ty)
        tl.store(out + t * SIZE + o, zeros, mask=inside)

"""Kernels of updates with few coefficients between two transforms (lines.py has the sums).

    analyse      Y_r of each row of x; once for all linears that see the same rows. Rows are real,
                 so half of it is the other half's conjugate, and not written
    combine      z[k] = value_s[k] X[col[k]], for the coefficients of all these linears
    synthesise   y += Re sum_k z[k] e^(2 pi i row[k] p / M), for one linear

A program of `analyse` and `synthesise` has one part of one row: two complex products of A x A and
B x B matrices. No program adds to what another one writes, so the same bits come out every time.
`synthesise` sorts coefficients into their cells by a product with ones and zeros.

Operands of products are rounded to TF32's ten bits; "tf32x3" multiplies what is left over, too.
Programs of rows whose slot is 0, which has no adapter, end at once.
"""

import triton
import triton.language as tl

from adapters_core.gpu_kernels.bank_rows import unit


@triton.jit
def _product(a, b, BY_DOTS: tl.constexpr):
    if BY_DOTS:
        return tl.dot(a, b, input_precision="tf32x3")
    return tl.sum(a[:, :, None] * b[None, :, :], axis=1)


@triton.jit
def _table(tables, SKIPPED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Return a complex matrix of a line's tables: real and imaginary parts."""
    cell = tl.arange(0, ROWS)[:, None] * COLS + tl.arange(0, COLS)[None, :]
    first = tables + SKIPPED
    return tl.load(first + cell), tl.load(first + ROWS * COLS + cell)


@triton.jit
def _folded(position, SIZE: tl.constexpr):
    """Return where a folded line's number stands in the line itself."""
    return tl.where(2 * position < SIZE, 2 * position, 2 * SIZE - 2 * position - 1)


@triton.jit
def analyse(
    x,  # [T, N]
    y,  # float32 [T, R, L // 2 + 1, 2]
    slots,  # int64 [T]
    tables,
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    IS_COSINE: tl.constexpr,
    BY_DOTS: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    if tl.load(slots + t) != 0:
        a = tl.arange(0, A)[:, None]
        b = tl.arange(0, B)[None, :]
        position = part + PARTS * (a * B + b)
        if IS_COSINE:
            position = _folded(position, SIZE)
        line = tl.load(x + t * SIZE + position).to(tl.float32)
        first_re, first_im = _table(tables, 0, A, A)
        re = _product(first_re, line, BY_DOTS)
        im = _product(first_im, line, BY_DOTS)
        turn_re, turn_im = _table(tables, 2 * A * A + 2 * B * B, A, B)
        turned_re = re * turn_re - im * turn_im
        turned_im = re * turn_im + im * turn_re
        last_re, last_im = _table(tables, 2 * A * A, B, B)
        re = _product(turned_re, last_re, BY_DOTS) - _product(turned_im, last_im, BY_DOTS)
        im = _product(turned_re, last_im, BY_DOTS) + _product(turned_im, last_re, BY_DOTS)
        k = a + A * b
        to = y + 2 * ((t * PARTS + part) * (A * B // 2 + 1) + k)
        tl.store(to, re, mask=2 * k <= A * B)
        tl.store(to + 1, im, mask=2 * k <= A * B)


@triton.jit
def combine(
    y,  # of `analyse`
    z,  # float32 [T, K, 2]
    bank,  # [slots, width]
    slots,
    values,  # int32 [K], where each coefficient stands in the bank's row
    cols,  # int32 [K], the frequency that it reads; IS_OWN: where the row has it
    gains,  # float32 [K, 2], of real and imaginary parts; cosines have none
    roots,
    width,
    num_values,
    scale,  # of a cosine
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    PART_SIZE: tl.constexpr,
    IS_COSINE: tl.constexpr,
    IS_OWN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = k < num_values
    slot = tl.load(slots + t)
    if slot != 0:
        row = bank + slot * width
        value = tl.load(row + tl.load(values + k, mask=inside, other=0)).to(tl.float32)
        value *= unit(bank, row, width)
        col = tl.load(cols + k, mask=inside, other=0)
        if IS_OWN:
            col = tl.load(row + col, mask=inside, other=0.0).to(tl.int32)
        in_part = col % PART_SIZE
        sign = tl.where(2 * in_part > PART_SIZE, -1.0, 1.0)
        in_part = tl.minimum(in_part, PART_SIZE - in_part)
        re = tl.zeros((BLOCK,), tl.float32)
        im = tl.zeros((BLOCK,), tl.float32)
        for part in range(PARTS):
            if IS_COSINE:
                turn = (col * (4 * part + 1)) % (4 * SIZE)
            else:
                turn = (col * part) % SIZE
            cos = tl.load(roots + 2 * turn)
            sin = tl.load(roots + 2 * turn + 1)
            cell = y + 2 * ((t * PARTS + part) * (PART_SIZE // 2 + 1) + in_part)
            y_re = tl.load(cell)
            y_im = sign * tl.load(cell + 1)
            re += y_re * cos + y_im * sin
            im += y_im * cos - y_re * sin
        if IS_COSINE:
            re = re * value * tl.where(col == 0, scale * 0.7071067811865476, scale)
            im = tl.zeros((BLOCK,), tl.float32)
        else:
            re = re * value * tl.load(gains + 2 * k, mask=inside, other=0.0)
            im = im * value * tl.load(gains + 2 * k + 1, mask=inside, other=0.0)
        to = z + 2 * (t * num_values + k)
        tl.store(to, re, mask=inside)
        tl.store(to + 1, im, mask=inside)


@triton.jit
def synthesise(
    z,  # of `combine`
    out,  # [T, M], added to
    bank,
    slots,
    rows,  # int32 [COUNT], the frequency that each writes; IS_OWN: where the row has it
    tables,
    roots,
    width,
    num_values,
    first,  # of this linear's coefficients among the K
    scale,
    COUNT: tl.constexpr,  # of this linear's coefficients
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    IS_COSINE: tl.constexpr,
    IS_OWN: tl.constexpr,
    BY_DOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    slot = tl.load(slots + t)
    if slot != 0:
        a = tl.arange(0, A)
        b = tl.arange(0, B)
        sum_re = tl.zeros((A, B), tl.float32)
        sum_im = tl.zeros((A, B), tl.float32)
        for start in range(0, COUNT, BLOCK):
            k = start + tl.arange(0, BLOCK)
            inside = k < COUNT
            row = tl.load(rows + k, mask=inside, other=0)
            if IS_OWN:
                row = tl.load(bank + slot * width + row, mask=inside, other=0.0).to(tl.int32)
            read = z + 2 * (t * num_values + first + k)
            z_re = tl.load(read, mask=inside, other=0.0)
            z_im = tl.load(read + 1, mask=inside, other=0.0)
            if IS_COSINE:
                turn = (row * (4 * part + 1)) % (4 * SIZE)
                z_re = z_re * tl.where(row == 0, scale * 0.7071067811865476, scale)
            else:
                turn = (row * part) % SIZE
            cos = tl.load(roots + 2 * turn)
            sin = tl.load(roots + 2 * turn + 1)
            cell = row % (A * B)
            in_row = (a[:, None] == (cell // B)[None, :]).to(tl.float32)  # [A, BLOCK]
            in_col = (cell % B)[:, None] == b[None, :]  # [BLOCK, B]
            turned_re = z_re * cos - z_im * sin
            turned_im = z_re * sin + z_im * cos
            sum_re += _product(in_row, tl.where(in_col, turned_re[:, None], 0.0), BY_DOTS)
            sum_im += _product(in_row, tl.where(in_col, turned_im[:, None], 0.0), BY_DOTS)
        first_re, first_im = _table(tables, 0, A, A)
        re = _product(first_re, sum_re, BY_DOTS) + _product(first_im, sum_im, BY_DOTS)
        im = _product(first_re, sum_im, BY_DOTS) - _product(first_im, sum_re, BY_DOTS)
        turn_re, turn_im = _table(tables, 2 * A * A + 2 * B * B, A, B)
        turned_re = re * turn_re + im * turn_im
        turned_im = im * turn_re - re * turn_im
        last_re, last_im = _table(tables, 2 * A * A, B, B)
        update = _product(turned_re, last_re, BY_DOTS) + _product(turned_im, last_im, BY_DOTS)
        position = part + PARTS * (a[:, None] + A * b[None, :])
        if IS_COSINE:
            position = _folded(position, SIZE)
        to = out + t * SIZE + position
        tl.store(to, (tl.load(to).to(tl.float32) + update).to(out.dtype.element_ty))

"""Kernels of updates with few coefficients between two transforms (lines.py has the sums).

    analyse      z[k] = value_s[k] X[col[k]], once for all linears that see the same rows
    synthesise   y += Re sum_k z[k] e^(2 pi i row[k] p / M), for one linear; or y =

A program of `analyse` transforms a row, four thousand numbers at a time, and keeps their spectra
to itself: they are gathered from shared memory. One of `synthesise` has one part of one row. A
part is two complex products of A x A and B x B matrices. No program adds to what another one
writes, so the same bits come out every time. `synthesise` sorts coefficients into their cells by a
product with ones and zeros.

Operands of products are rounded to TF32's ten bits; "tf32x3" multiplies what is left over, too.
Programs of rows whose slot is 0, which has no adapter, end at once, or write zeros.
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
def _spectra(
    x,  # the row's own
    tables,
    first,  # of the parts
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    IS_COSINE: tl.constexpr,
    BY_DOTS: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Return Y_r[c + A d] of AT_ONCE parts, real and imaginary ones, flat: r, then c, then d."""
    number = tl.arange(0, AT_ONCE * B)[:, None]
    part, b = first + number // B, number % B
    a = tl.arange(0, A)[None, :]
    position = part + PARTS * (a * B + b)
    if IS_COSINE:
        position = _folded(position, SIZE)
    line = tl.load(x + position, mask=part < PARTS, other=0.0).to(tl.float32)
    first_re, first_im = _table(tables, 0, A, A)
    re = _product(line, first_re, BY_DOTS)  # [(r, b), c]: what is long stands in rows, which
    im = _product(line, first_im, BY_DOTS)  # warps share out; columns each of them has in full
    turn = tables + 2 * A * A + 2 * B * B + a * B + b
    turn_re = tl.load(turn)
    turn_im = tl.load(turn + A * B)
    turned_re = _across(re * turn_re - im * turn_im, A, B, AT_ONCE)
    turned_im = _across(re * turn_im + im * turn_re, A, B, AT_ONCE)
    last_re, last_im = _table(tables, 2 * A * A, B, B)
    left = _product(turned_re, last_re, BY_DOTS)
    right = _product(turned_im, last_im, BY_DOTS)
    both = _product(turned_re + turned_im, last_re + last_im, BY_DOTS)
    re = tl.reshape(left - right, (AT_ONCE * A * B,))
    return re, tl.reshape(both - left - right, (AT_ONCE * A * B,))


@triton.jit
def _across(z, A: tl.constexpr, B: tl.constexpr, AT_ONCE: tl.constexpr):
    """Return z `[(r, b), c]` as `[(r, c), b]`."""
    z = tl.permute(tl.reshape(z, (AT_ONCE, B, A)), (0, 2, 1))
    return tl.reshape(z, (AT_ONCE * A, B))


@triton.jit
def _gathered(
    spectra_re,  # of `_spectra`
    spectra_im,
    roots,
    first,
    col,  # [BLOCK], the frequencies
    inside,  # [BLOCK]
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    IS_COSINE: tl.constexpr,
    AT_ONCE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return what AT_ONCE parts add to X of the frequencies, real and imaginary parts."""
    number = tl.arange(0, AT_ONCE)[None, :]
    part = first + number
    if IS_COSINE:
        turn = (col[:, None] * (4 * part + 1)) % (4 * SIZE)
    else:
        turn = (col[:, None] * part) % SIZE
    is_real = inside[:, None] & (part < PARTS)
    cos = tl.load(roots + 2 * turn, mask=is_real, other=0.0)
    sin = tl.load(roots + 2 * turn + 1, mask=is_real, other=0.0)
    in_part = (col % (A * B))[:, None]
    cell = (number * A + in_part % A) * B + in_part // A
    cell = tl.reshape(cell, (BLOCK * AT_ONCE,))
    re = tl.reshape(tl.gather(spectra_re, cell, 0), (BLOCK, AT_ONCE))
    im = tl.reshape(tl.gather(spectra_im, cell, 0), (BLOCK, AT_ONCE))
    return tl.sum(re * cos + im * sin, axis=1), tl.sum(im * cos - re * sin, axis=1)


@triton.jit
def analyse(
    x,  # [T, N]
    z,  # float32 [T, K, 2]
    bank,  # [slots, width]
    slots,  # int64 [T]
    values,  # int32 [K], where each coefficient stands in the bank's row
    cols,  # int32 [K], the frequency that it reads; IS_OWN: where the row has it
    gains,  # float32 [K, 2], of real and imaginary parts; cosines have none
    tables,
    roots,
    width,
    num_values,
    scale,  # of a cosine
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    IS_COSINE: tl.constexpr,
    IS_OWN: tl.constexpr,
    BY_DOTS: tl.constexpr,
    AT_ONCE: tl.constexpr,  # parts
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,  # of coefficients that a program has
):
    t = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + t)
    if slot != 0:
        line = x + t * SIZE
        row = bank + slot * width
        scale_of_row = unit(bank, row, width)
        for first in range(0, PARTS, AT_ONCE):
            spectra_re, spectra_im = _spectra(
                line, tables, first, SIZE, PARTS, A, B, IS_COSINE, BY_DOTS, AT_ONCE
            )
            for block in range(BLOCKS):
                k = (tl.program_id(1) * BLOCKS + block) * BLOCK + tl.arange(0, BLOCK)
                inside = k < num_values
                col = tl.load(cols + k, mask=inside, other=0)
                if IS_OWN:
                    col = tl.load(row + col, mask=inside, other=0.0).to(tl.int32)
                re, im = _gathered(
                    spectra_re,
                    spectra_im,
                    roots,
                    first,
                    col,
                    inside,
                    SIZE,
                    PARTS,
                    A,
                    B,
                    IS_COSINE,
                    AT_ONCE,
                    BLOCK,
                )
                place = tl.load(values + k, mask=inside, other=0)
                value = tl.load(row + place, mask=inside, other=0.0).to(tl.float32)
                value *= scale_of_row
                if IS_COSINE:
                    re = re * value * tl.where(col == 0, scale * 0.7071067811865476, scale)
                    im = tl.zeros((BLOCK,), tl.float32)
                else:
                    re = re * value * tl.load(gains + 2 * k, mask=inside, other=0.0)
                    im = im * value * tl.load(gains + 2 * k + 1, mask=inside, other=0.0)
                to = z + 2 * (t * num_values + k)
                if first > 0:
                    re += tl.load(to, mask=inside, other=0.0)
                    im += tl.load(to + 1, mask=inside, other=0.0)
                tl.store(to, re, mask=inside)
                tl.store(to + 1, im, mask=inside)
            tl.debug_barrier()  # the next parts add to what other threads have stored


@triton.jit
def _cells(
    part,
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    IS_COSINE: tl.constexpr,
):
    """Return where a part's numbers c + A d stand in the line, `[A, B]`."""
    position = part + PARTS * (tl.arange(0, A)[:, None] + A * tl.arange(0, B)[None, :])
    if IS_COSINE:
        position = _folded(position, SIZE)
    return position


@triton.jit
def synthesise(
    z,  # of `analyse`
    out,  # [T, M]
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
    ADDS: tl.constexpr,  # to what is there
    BLOCK: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    slot = tl.load(slots + t)
    a = tl.arange(0, A)
    b = tl.arange(0, B)
    if slot != 0:
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
        to = out + t * SIZE + _cells(part, SIZE, PARTS, A, B, IS_COSINE)
        if ADDS:
            update += tl.load(to).to(tl.float32)
        tl.store(to, update.to(out.dtype.element_ty))
    elif not ADDS:
        to = out + t * SIZE + _cells(part, SIZE, PARTS, A, B, IS_COSINE)
        tl.store(to, tl.zeros((A, B), out.dtype.element_ty))

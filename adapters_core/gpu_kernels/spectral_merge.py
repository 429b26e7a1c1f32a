"""The kernel that merges a spectral update: golden + delta, from coefficients in one pass.

    delta[p, q] = sum_k value_k f(row_k, p) w_N^(-col_k q)        w_N = e^(-2 pi i / N)

A program makes two rows of the weight, of part r of the line (lines.py). It sums each frequency of
both rows from the coefficients that stand there, a few, so no spectrum is ever stored:

    z[c] = sum of value_k w_N^(-col_k r) ( f(row_k, p) + i f(row_k, p + 1) ),  col_k = c  (mod L)

The spectrum of a real row is Hermitian (each coefficient stands at col and at -col), so one
complex transform gives both rows, in its real and its imaginary part:

    x[a B + b] = sum_c conj F_A[a, c] conj w_L^(b c) sum_d conj F_B[b, d] z[c + A d]

Fourier: f = e^(2 pi i row p / M), and row M - p is row p mirrored: 4 rows a program. Cosine:
f = cos(pi (2 p + 1) row / (2 M)), of the folded line.
"""

import triton
import triton.language as tl

from adapters_core.gpu_kernels.spectral import _folded, _table


@triton.jit
def _sum(a, b, c, d, BY_DOTS: tl.constexpr):
    """Return a @ b + c @ d."""
    if BY_DOTS:
        return tl.dot(c, d, tl.dot(a, b, input_precision="tf32x3"), input_precision="tf32x3")
    return tl.sum(a[:, :, None] * b[None, :, :], axis=1) + tl.sum(
        c[:, :, None] * d[None, :, :], axis=1
    )


@triton.jit
def _add_rows(
    golden,
    out,
    position,
    first,  # row of the real parts
    second,  # and of the imaginary ones
    re,
    im,
    has_first,
    has_second,
    golden_row,
    golden_col,
    out_row,
    out_col,
):
    """Write golden + update to two rows; those that are not there are left alone."""
    from_, to = golden + position * golden_col, out + position * out_col
    inside = (position >= 0) & has_first
    old = tl.load(from_ + first * golden_row, mask=inside, other=0.0)
    new = (old.to(tl.float32) + re).to(out.dtype.element_ty)
    tl.store(to + first * out_row, new, mask=inside)
    inside = (position >= 0) & has_second
    old = tl.load(from_ + second * golden_row, mask=inside, other=0.0)
    new = (old.to(tl.float32) + im).to(out.dtype.element_ty)
    tl.store(to + second * out_row, new, mask=inside)


@triton.jit
def add_spectrum(
    golden,  # [M, N]
    out,  # [M, N]
    values,  # float32 [K], by the cell that they stand in
    rows,  # int32 [K], the frequency along the rows
    cols,  # int32 [K], the one along a row, 0..N - 1; of cosines 0..4 N - 1
    steps,  # float32 [K, 2], what f is multiplied by from row to row
    starts,  # int32 [A * B + 1], where the coefficients of cell a * B + b begin: c = a + A b
    tables,
    roots,
    row_roots,  # float32, of M, or of 4 M for cosines
    num_rows,
    golden_row,
    golden_col,
    out_row,
    out_col,
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    IS_COSINE: tl.constexpr,
    BY_DOTS: tl.constexpr,
):
    part = tl.program_id(0)
    p = 2 * tl.program_id(1)
    cell = tl.arange(0, A)[:, None] * B + tl.arange(0, B)[None, :]
    start = tl.load(starts + cell)
    count = tl.load(starts + cell + 1) - start
    most = tl.max(tl.max(count, axis=1), axis=0)
    z_re = tl.zeros((A, B), tl.float32)
    z_im = tl.zeros((A, B), tl.float32)
    number = 0
    while number < most:
        inside = number < count
        k = start + number
        value = tl.load(values + k, mask=inside, other=0.0)
        row = tl.load(rows + k, mask=inside, other=0)
        step_re = tl.load(steps + 2 * k, mask=inside, other=0.0)
        step_im = tl.load(steps + 2 * k + 1, mask=inside, other=0.0)
        if IS_COSINE:
            turn = ((2 * p + 1) * row) % (4 * num_rows)
        else:
            turn = (p * row) % num_rows
        f_re = tl.load(row_roots + 2 * turn, mask=inside, other=0.0)
        f_im = tl.load(row_roots + 2 * turn + 1, mask=inside, other=0.0)
        next_re = f_re * step_re - f_im * step_im
        if IS_COSINE:
            re = f_re
            im = next_re
        else:
            re = f_re - (f_re * step_im + f_im * step_re)
            im = f_im + next_re
        if IS_COSINE or PARTS > 1:
            col = tl.load(cols + k, mask=inside, other=0)
            if IS_COSINE:
                turn = (col * (4 * part + 1)) % (4 * SIZE)
            else:
                turn = (col * part) % SIZE
            cos = tl.load(roots + 2 * turn, mask=inside, other=0.0)
            sin = tl.load(roots + 2 * turn + 1, mask=inside, other=0.0)
            turned = re * cos - im * sin
            im = re * sin + im * cos
            re = turned
        z_re += value * re
        z_im += value * im
        number += 1
    last_re, last_im = _table(tables, 2 * A * A, B, B)
    re = _sum(z_re, last_re, z_im, last_im, BY_DOTS)
    im = _sum(z_im, last_re, -z_re, last_im, BY_DOTS)
    turn_re, turn_im = _table(tables, 2 * A * A + 2 * B * B, A, B)
    turned_re = re * turn_re + im * turn_im
    turned_im = im * turn_re - re * turn_im
    first_re, first_im = _table(tables, 0, A, A)
    re = _sum(first_re, turned_re, first_im, turned_im, BY_DOTS)
    im = _sum(first_re, turned_im, first_im, -turned_re, BY_DOTS)
    position = part + PARTS * cell
    first = p.to(tl.int64)
    if IS_COSINE:
        _add_rows(
            golden,
            out,
            _folded(position, SIZE).to(tl.int64),
            first,
            first + 1,
            re,
            im,
            first < num_rows,
            first + 1 < num_rows,
            golden_row,
            golden_col,
            out_row,
            out_col,
        )
    else:
        _add_rows(
            golden,
            out,
            position.to(tl.int64),
            first,
            first + 1,
            re,
            im,
            2 * p <= num_rows,
            2 * p + 2 <= num_rows,
            golden_row,
            golden_col,
            out_row,
            out_col,
        )
        _add_rows(
            golden,
            out,
            ((SIZE - position) % SIZE).to(tl.int64),
            num_rows - first,
            num_rows - first - 1,
            re,
            im,
            (p > 0) & (2 * p < num_rows),
            2 * p + 2 < num_rows,
            golden_row,
            golden_col,
            out_row,
            out_col,
        )

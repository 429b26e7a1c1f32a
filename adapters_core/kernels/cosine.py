"""What turns a real Fourier transform into a cosine transform: reordering and turning, in one pass.

transforms/cosine.py has the mathematics. A row is folded (even entries forwards, odd ones
backwards), transformed by torch, and its half spectrum turned; the way back is the same in
reverse. Each step is one loop over the row; torch would take five operations for it. Nothing is
summed across rows and no two roundings are contracted into one, so a row's bits depend on itself
alone. Indices are unsigned: a signed one is asked whether it counts from the end, and nothing
becomes a vector.

The compiled loops run on a CPU in float32 where no gradient is asked for; the references run
anywhere and are differentiable.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer
from adapters_core.kernels.located import located_rows_reference


def is_compiled(x: Tensor) -> bool:
    """Return whether the compiled loops take x: float32 (or its spectrum), on a CPU, no graph."""
    dtype_fits = x.dtype in (torch.float32, torch.complex64)
    return dtype_fits and x.device.type == "cpu" and not x.requires_grad


def as_spectra(parts: Tensor) -> Tensor:
    """Return real and imaginary parts in turn, `[T, 2K]`, as a complex view `[T, K]`."""
    return torch.view_as_complex(parts.view(parts.shape[0], parts.shape[1] // 2, 2))


def lengthened(x: Tensor, num_rows: int | None) -> Tensor:
    """Return x `[T, N]` with rows of zeros behind it: `[num_rows, N]`; None stands for T."""
    if num_rows is None or num_rows == x.shape[0]:
        return x
    return torch.cat([x, x.new_zeros(num_rows - x.shape[0], x.shape[1])])


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _fold_loop(x, out):  # type: ignore[no-untyped-def]
    size = x.shape[1]  # pragma: no cover - compiled
    one, two = np.uintp(1), np.uintp(2)
    half, end = np.uintp(size // 2), np.uintp(size - 1)
    for t in range(x.shape[0]):
        row, target = x[t], out[t]
        i = np.uintp(0)
        while i < half:
            target[i] = row[two * i]
            target[end - i] = row[two * i + one]
            i += one
        if size % 2:
            target[half] = row[end]


def folded_rows(x: Tensor, num_rows: int | None = None) -> Tensor:
    """Return `[num_rows, N]`: each row of x `[T, N]`, its odd entries behind and backwards.

    Args:
        x: the rows.
        num_rows: T or more; rows of zeros follow. None stands for T.
    """
    if not is_compiled(x):
        return folded_rows_reference(lengthened(x, num_rows))
    out = torch.empty(x.shape[0] if num_rows is None else num_rows, x.shape[1])
    out[x.shape[0] :] = 0
    _fold_loop(x.contiguous().numpy(), out.numpy())
    return out


def folded_rows_reference(x: Tensor) -> Tensor:
    """Return what `folded_rows` does, in torch operations."""
    return torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _unfold_loop(folded, out, first, step):  # type: ignore[no-untyped-def]
    size = folded.shape[1]  # pragma: no cover - compiled
    one, two = np.uintp(1), np.uintp(2)
    half, end = np.uintp(size // 2), np.uintp(size - 1)
    for t in range(folded.shape[0]):
        row, target = folded[t], out[first + step * t]
        i = np.uintp(0)
        while i < half:
            target[two * i] = row[i]
            target[two * i + one] = row[end - i]
            i += one
        if size % 2:
            target[end] = row[half]


def unfolded_rows(folded: Tensor) -> Tensor:
    """Return the inverse of `folded_rows` `[T, N]`."""
    if not is_compiled(folded):
        return unfolded_rows_reference(folded)
    out = torch.empty(folded.shape)
    _unfold_loop(folded.contiguous().numpy(), out.numpy(), 0, 1)
    return out


def unfolded_rows_reference(folded: Tensor) -> Tensor:
    """Return what `unfolded_rows` does, in torch operations."""
    middle = (folded.shape[-1] + 1) // 2
    result = torch.empty_like(folded)
    result[..., ::2] = folded[..., :middle]
    result[..., 1::2] = folded[..., middle:].flip(-1)
    return result


def unfold_into(folded: Tensor, out: Tensor, backwards: bool) -> None:
    """Write the unfolded rows of `[T, N]` to `out`, float32 on a CPU, the last one first if asked.

    Args:
        folded: `[T, N]`, contiguous.
        out: `[T, N]`, contiguous.
        backwards: whether row t goes to row T - 1 - t.
    """
    first, step = (folded.shape[0] - 1, -1) if backwards else (0, 1)
    _unfold_loop(folded.numpy(), out.numpy(), first, step)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _turn_loop(spectrum, turn, out):  # type: ignore[no-untyped-def]
    length = out.shape[1]  # pragma: no cover - compiled
    one, two, size = np.uintp(1), np.uintp(2), np.uintp(length)
    low, high = np.uintp(length // 2 + 1), np.uintp((length + 1) // 2)
    cos, sin = turn[0], turn[1]
    for t in range(out.shape[0]):
        parts, row = spectrum[t], out[t]
        k = np.uintp(0)
        while k < low:
            row[k] = parts[two * k] * cos[k] + parts[two * k + one] * sin[k]
            k += one
        k = one
        while k < high:
            row[size - k] = parts[two * k] * sin[k] - parts[two * k + one] * cos[k]
            k += one


def turned_rows(spectrum: Tensor, turn: Tensor, size: int) -> Tensor:
    """Return the cosine transforms `[T, N]` whose folded rows have this half spectrum.

    Args:
        spectrum: complex `[T, N // 2 + 1]`.
        turn: `[2, N // 2 + 1]`, cosines and sines, scaled.
        size: N.
    """
    if not is_compiled(spectrum):
        return turned_rows_reference(spectrum, turn, size)
    out = torch.empty(spectrum.shape[0], size)
    parts = torch.view_as_real(spectrum.contiguous()).flatten(1)
    _turn_loop(parts.numpy(), turn.numpy(), out.numpy())
    return out


def turned_rows_reference(spectrum: Tensor, turn: Tensor, size: int) -> Tensor:
    """Return what `turned_rows` does, in torch operations."""
    cos, sin = turn
    real, imag = spectrum.real, spectrum.imag
    low = real * cos + imag * sin  # 0..N/2
    high = slice(1, (size + 1) // 2)  # N - k of these k
    turned = real[..., high] * sin[high] - imag[..., high] * cos[high]
    return torch.cat([low, turned.flip(-1)], dim=-1)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _unturn(row, cos, sin, parts):  # type: ignore[no-untyped-def]
    one, two, size = np.uintp(1), np.uintp(2), np.uintp(row.shape[0])  # pragma: no cover - compiled
    parts[0], parts[1] = row[0] * cos[0], np.float32(0)
    k = one
    while two * k <= size:
        low, high = row[k], row[size - k]
        parts[two * k] = low * cos[k] + high * sin[k]
        parts[two * k + one] = low * sin[k] - high * cos[k]
        k += one


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _unturn_loop(x, turn, out):  # type: ignore[no-untyped-def]
    for t in range(x.shape[0]):  # pragma: no cover - compiled
        _unturn(x[t], turn[0], turn[1], out[t])


def unturned_rows(x: Tensor, turn: Tensor) -> Tensor:
    """Return the half spectra, complex `[T, N // 2 + 1]`, of cosine coefficients x `[T, N]`.

    Args:
        x: the rows.
        turn: `[2, N // 2 + 1]`, cosines and sines, scaled for the way back.
    """
    if not is_compiled(x):
        return unturned_rows_reference(x, turn)
    out = torch.empty(x.shape[0], 2 * turn.shape[1])
    _unturn_loop(x.contiguous().numpy(), turn.numpy(), out.numpy())
    return as_spectra(out)


def unturned_rows_reference(x: Tensor, turn: Tensor) -> Tensor:
    """Return what `unturned_rows` does, in torch operations."""
    size, (cos, sin) = x.shape[-1], turn
    low = x[..., : size // 2 + 1]
    high = torch.cat([torch.zeros_like(x[..., :1]), x[..., (size + 1) // 2 :].flip(-1)], dim=-1)
    return torch.complex(low * cos + high * sin, low * sin - high * cos)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _located_spectrum_loop(  # type: ignore[no-untyped-def]
    x, buffer, offset, slots, n, turn, size, out
):  # pragma: no cover - compiled
    core = np.empty(size, np.float32)
    # Converted once a slot, and unsigned: a signed index is asked whether it counts from the end.
    rows, cols = np.empty(n, np.uint32), np.empty(n, np.uint32)
    last = -1
    for t in range(slots.shape[0]):
        packed = buffer[slots[t], offset:]
        if slots[t] != last:
            last = slots[t]
            for k in range(n):
                rows[k] = np.int32(packed[n + k])
                cols[k] = np.int32(packed[2 * n + k])
        core[:] = 0
        row = x[t]
        for k in range(n):
            core[rows[k]] += packed[k] * row[cols[k]]
        _unturn(core, turn[0], turn[1], out[t])


def located_spectrum(
    x: Tensor, layer: PackedLayer, slots: Tensor, turn: Tensor, size: int
) -> Tensor:
    """Return the half spectra of the rows' updates: `located_rows`, then `unturned_rows`.

    Args:
        x: `[R, in]`, rows of cosine coefficients.
        layer: `[slots, 3n]`, values, rows and columns, all of them checked.
        slots: int64 `[T]`, T <= R; the rows behind them give zeros.
        turn: `[2, size // 2 + 1]`.
        size: of the layer's output.
    """
    if not is_compiled(x):
        return located_spectrum_reference(x, layer, slots, turn, size)
    out = torch.empty(x.shape[0], 2 * turn.shape[1])
    out[slots.shape[0] :] = 0
    _located_spectrum_loop(
        x.contiguous().numpy(),
        layer.buffer.numpy(),
        layer.offset,
        slots.numpy(),
        layer.length // 3,
        turn.numpy(),
        size,
        out.numpy(),
    )
    return as_spectra(out)


def located_spectrum_reference(
    x: Tensor, layer: PackedLayer, slots: Tensor, turn: Tensor, size: int
) -> Tensor:
    """Return what `located_spectrum` does, in torch operations."""
    core = x.new_zeros(x.shape[0], size)
    core[: slots.shape[0]] = located_rows_reference(x[: slots.shape[0]], layer, slots, size)
    return unturned_rows_reference(core, turn)

"""Gather, multiply, scatter: a sparse spectral core applied to rows of different adapters.

For row t with slot s, and coefficient k of the packed layer:

    z[t, row[k]] += bank[s, k] * (re X[t, col[k]], sign[k] * im X[t, col[k]])

where sign is -1 for the first `num_minus` coefficients and +1 for the rest. One pass over the
coefficients a row; torch's `index_add_` does the same in four times the time.
"""

import numba
import torch
from torch import Tensor

from adapters_core.method import PackedLayer


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _spectral_loop(  # type: ignore[no-untyped-def]
    spectrum, buffer, offset, slots, cols, rows, num_minus, out
):  # pragma: no cover - compiled
    for t in range(spectrum.shape[0]):
        bank = buffer[slots[t], offset:]
        for k in range(num_minus):
            out[t, rows[k], 0] += bank[k] * spectrum[t, cols[k], 0]
            out[t, rows[k], 1] -= bank[k] * spectrum[t, cols[k], 1]
        for k in range(num_minus, cols.shape[0]):
            out[t, rows[k], 0] += bank[k] * spectrum[t, cols[k], 0]
            out[t, rows[k], 1] += bank[k] * spectrum[t, cols[k], 1]


def spectral_rows(
    spectrum: Tensor,
    layer: PackedLayer,
    slots: Tensor,
    cols: Tensor,
    rows: Tensor,
    num_minus: int,
    size: int,
) -> Tensor:
    """Return the half spectra `[T, size]`, complex, of the rows' updates.

    Args:
        spectrum: complex `[T, N // 2 + 1]`, the rows' own half spectra.
        layer: the packed coefficients, one per place, in the order of `cols` and `rows`.
        slots: int64 `[T]`.
        cols: int32 `[n]`, the frequency each coefficient reads.
        rows: int32 `[n]`, the frequency each coefficient writes.
        num_minus: how many coefficients, at the front, take the conjugate.
        size: M // 2 + 1.
    """
    if spectrum.device.type != "cpu" or spectrum.dtype != torch.complex64:
        return spectral_rows_reference(spectrum, layer, slots, cols, rows, num_minus, size)
    out = torch.zeros(spectrum.shape[0], size, dtype=torch.complex64)
    _spectral_loop(
        torch.view_as_real(spectrum).numpy(),
        layer.buffer.numpy(),
        layer.offset,
        slots.numpy(),
        cols.numpy(),
        rows.numpy(),
        num_minus,
        torch.view_as_real(out).numpy(),
    )
    return out


def spectral_rows_reference(
    spectrum: Tensor,
    layer: PackedLayer,
    slots: Tensor,
    cols: Tensor,
    rows: Tensor,
    num_minus: int,
    size: int,
) -> Tensor:
    """Return what `spectral_rows` does, in torch operations that run on any device and dtype."""
    read = spectrum[:, cols.long()]  # [T, n]
    read = torch.cat([read[:, :num_minus].conj(), read[:, num_minus:]], dim=1)
    read = read * layer.rows()[slots].to(read.real.dtype)
    out = torch.zeros(spectrum.shape[0], size, dtype=spectrum.dtype, device=spectrum.device)
    return out.index_add_(1, rows.long(), read)

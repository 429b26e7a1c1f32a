"""Gather, multiply, scatter: a sparse spectral core applied to rows of different adapters.

For row t with slot s, and coefficient k of the packed layer:

    z[t, row[k]] += bank[s, k] * (re X[t, col[k]], sign[k] * im X[t, col[k]])

Coefficients are packed by the row they write, those that read the conjugate first, so that a sum
stays in registers and is stored once. Indices are unsigned: a signed one makes the compiler ask
at every access whether it counts from the end, which doubles the time.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer


@dataclass(frozen=True)
class SpectralPlan:
    """Where the coefficients of a layer read and write, in the order in which they are packed.

    Args:
        order: int64 `[n]`, the packed order of the file's coefficients.
        host_order: the same in host memory, where they are packed.
        cols: int64 `[n]`, the frequency that each reads.
        rows: int64 `[n]`, the frequency that each writes, ascending.
        signs: `[n]`, -1 where the conjugate is read, else 1.
        size: how many frequencies there are to write.
        reads, writes, stops: the same for the compiled loop, uint32: `[n]` and `[W]` offsets into
            interleaved real and imaginary parts, `[2 W]` where the conjugate and the plain
            coefficients of each written frequency end.
        terms: int64 `[size, most]`, the coefficients that each frequency sums, n where there are
            no more; None where the loop is compiled.
    """

    order: Tensor
    host_order: Tensor
    cols: Tensor
    rows: Tensor
    signs: Tensor
    size: int
    reads: Any
    writes: Any
    stops: Any
    terms: Tensor | None = None


def spectral_plan(
    cols: Tensor, rows: Tensor, plus: Tensor, size: int, device: torch.device
) -> SpectralPlan:
    """Return the plan of coefficients that read `cols` and write `rows`, all int64 `[n]`.

    Args:
        cols: the frequencies read.
        rows: the frequencies written.
        plus: bool, False where the conjugate is read.
        size: all rows are below it.
        device: where the batch lives.
    """
    order = torch.argsort((2 * rows + plus.long()) * (int(cols.max()) + 1) + cols)
    cols, rows, plus = cols[order], rows[order], plus[order]
    writes, counts = torch.unique_consecutive(rows, return_counts=True)
    plain = torch.zeros_like(writes).index_add_(
        0, torch.arange(len(writes)).repeat_interleave(counts), plus.long()
    )
    ends = counts.cumsum(0)
    stops = torch.stack([ends - plain, ends], dim=1).reshape(-1)
    return SpectralPlan(
        order.to(device),
        order,
        cols.to(device),
        rows.to(device),
        (2.0 * plus - 1.0).to(device),
        size,
        _offsets(2 * cols),
        _offsets(2 * writes),
        _offsets(stops),
        None if device.type == "cpu" else terms_of(rows, size).to(device),
    )


def terms_of(rows: Tensor, size: int) -> Tensor:
    """Return int64 `[size, most]`: where ascending rows `[n]` have each number, n behind them."""
    counts = torch.bincount(rows, minlength=size)
    starts = counts.cumsum(0) - counts
    steps = torch.arange(int(counts.max()))
    return torch.where(steps < counts[:, None], starts[:, None] + steps, rows.numel())


def _offsets(numbers: Tensor) -> Any:
    return numbers.cpu().numpy().astype(np.uint32)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _spectral_loop(  # type: ignore[no-untyped-def]
    spectrum, buffer, offset, slots, reads, writes, stops, out
):  # pragma: no cover - compiled
    one = np.uintp(1)
    for t in range(spectrum.shape[0]):
        bank = buffer[slots[t], offset:]
        x, z = spectrum[t], out[t]
        k = np.uintp(0)
        for w in range(writes.shape[0]):
            real, imag = np.float32(0), np.float32(0)
            middle, end = np.uintp(stops[2 * w]), np.uintp(stops[2 * w + 1])
            while k < middle:
                c = np.uintp(reads[k])
                real += bank[k] * x[c]
                imag -= bank[k] * x[c + one]
                k += one
            while k < end:
                c = np.uintp(reads[k])
                real += bank[k] * x[c]
                imag += bank[k] * x[c + one]
                k += one
            row = np.uintp(writes[w])
            z[row] = real
            z[row + one] = imag


def spectral_rows(
    spectrum: Tensor, layer: PackedLayer, slots: Tensor, plan: SpectralPlan
) -> Tensor:
    """Return the half spectra `[T, plan.size]`, complex, of the rows' updates.

    Args:
        spectrum: complex `[T, N // 2 + 1]`, the rows' own half spectra.
        layer: the packed coefficients, one per position, in the plan's order.
        slots: int64 `[T]`.
        plan: where they read and write.
    """
    if plan.terms is not None:
        return spectral_rows_summed(spectrum, layer, slots, plan)
    if spectrum.device.type != "cpu" or spectrum.dtype != torch.complex64:
        return spectral_rows_reference(spectrum, layer, slots, plan)
    out = np.zeros((spectrum.shape[0], plan.size), dtype=np.complex64)
    _spectral_loop(
        spectrum.contiguous().numpy().view(np.float32),
        layer.buffer.numpy(),
        layer.offset,
        slots.numpy(),
        plan.reads,
        plan.writes,
        plan.stops,
        out.view(np.float32),
    )
    return torch.from_numpy(out)


def spectral_rows_reference(
    spectrum: Tensor, layer: PackedLayer, slots: Tensor, plan: SpectralPlan
) -> Tensor:
    """Return what `spectral_rows` does, in torch operations that run on any device and dtype."""
    read = spectrum[:, plan.cols]  # [T, n]
    values = layer.of(slots).to(read.real.dtype)
    signs = plan.signs.to(read.real.dtype)
    core = torch.complex(read.real * values, read.imag * values * signs)
    out = torch.zeros(spectrum.shape[0], plan.size, dtype=spectrum.dtype, device=spectrum.device)
    return out.index_add_(1, plan.rows, core)


def spectral_rows_summed(
    spectrum: Tensor, layer: PackedLayer, slots: Tensor, plan: SpectralPlan
) -> Tensor:
    """Return what `spectral_rows` does by a gather and a sum in place of a scatter.

    A scatter on a GPU adds in the order in which threads arrive; this gives the same bits always.
    """
    assert plan.terms is not None
    parts = torch.view_as_real(spectrum)[:, plan.cols]  # [T, n, 2]
    values = layer.of(slots).to(parts.dtype)
    real, imag = parts[..., 0] * values, parts[..., 1] * (values * plan.signs.to(parts.dtype))
    core = torch.nn.functional.pad(torch.stack([real, imag], dim=-1), (0, 0, 0, 1))
    return torch.view_as_complex(core[:, plan.terms].sum(dim=2))

"""A copy of a weight with something added to a few of its cells, on one thread a part."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numba
import numpy as np
from torch import Tensor

from adapters_core.kernels.simd16 import LANES, can_stream, load, store, stream, streamed

#: Numbers that one part of a merge writes: a quarter of a millisecond.
_PART_NUMBERS = 1 << 18


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _cells_loop(first, last, cells, addends, golden, out, held):  # type: ignore[no-untyped-def]
    count = cells.shape[0]  # pragma: no cover - compiled
    cell = np.searchsorted(cells, first)
    for start in range(first, last, LANES):
        at = np.uintp(start)
        if cell < count and cells[cell] < start + LANES:
            store(held, np.uintp(0), load(golden, at))
            while cell < count and cells[cell] < start + LANES:
                held[np.uintp(cells[cell] - start)] += addends[cell]
                cell += 1
            stream(out, at, load(held, np.uintp(0)))
        else:
            stream(out, at, load(golden, at))
    streamed()


def cell_parts(
    cells: Tensor, addends: Tensor, golden: Tensor, out: Tensor
) -> list[Callable[[], None]]:
    """Return the parts of `out = golden`, with addends on some cells; each writes its own numbers.

    Args:
        cells: int64 `[n]`, flat and row-major, ascending without repetition, inside the weight.
        addends: float32 `[n]`.
        golden: `[M, N]`, as `can_stream` wants it.
        out: `[M, N]`, likewise; may not overlap golden.
    """
    matrices = (golden.numpy().reshape(-1), out.numpy().reshape(-1))
    count = out.numel()
    return [
        partial(
            _run_part,
            first,
            min(first + _PART_NUMBERS, count),
            cells.numpy(),
            addends.numpy(),
            *matrices,
        )
        for first in range(0, count, _PART_NUMBERS)
    ]


def all_cell_parts(
    changed: Iterable[tuple[Tensor, Tensor] | None],
    golden: Sequence[Tensor],
    out: Sequence[Tensor],
) -> list[Callable[[], None]] | None:
    """Return the parts of one such merge after the other; None where one cannot go this way.

    Args:
        changed: of each weight, as `Method.changed_cells` returns it; None for too many cells.
        golden: `[M, N]` each.
        out: likewise.
    """
    if not all(map(can_stream, golden, out)):
        return None
    parts: list[Callable[[], None]] = []
    for cells, weight, merged in zip(changed, golden, out, strict=True):
        if cells is None:
            return None
        parts += cell_parts(*cells, weight, merged)
    return parts


def _run_part(first: int, last: int, *arrays: np.ndarray) -> None:
    _cells_loop(first, last, *arrays, np.empty(LANES, dtype=np.float32))

"""Merge into a weight in place and take it back bit for bit, in what a sparse delta touches.

Adding and subtracting a delta would leave rounding behind. A patch keeps the numbers that the
merge replaced: n cells of a sparse delta cost n, whatever the size of the weight.

Merges may overlap; patches of one weight are undone in the reverse order.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patch:
    """What undoes one merge.

    Args:
        cells: int64 `[n]`, flat and row-major, ascending without repetition.
        before: `[n]` in the weight's dtype, what stood there.
    """

    cells: Tensor
    before: Tensor


@torch.inference_mode()
def merge_cells(weight: Tensor, cells: Tensor, addends: Tensor) -> Patch:
    """Write `weight + addends` into some cells of a weight: summed in float32, rounded once.

    Args:
        weight: `[out, in_]`, contiguous, of any floating dtype; written into.
        cells: int64 `[n]`, flat and row-major, ascending without repetition.
        addends: float32 `[n]`.

    Raises:
        ValueError: the weight is not contiguous or has no numbers, or the cells are not as said;
            nothing has been written.
    """
    flat = _flat(weight)
    _check_cells(cells, addends, flat)
    before = flat.index_select(0, cells)
    # Half precision is summed in float32: torch promotes it.
    flat.index_copy_(0, cells, (before + addends).to(flat.dtype))
    return Patch(cells, before)


@torch.inference_mode()
def undo(weight: Tensor, patch: Patch) -> None:
    """Put back what a merge replaced: every bit of the weight is as it was before.

    Args:
        weight: the one that was merged into, all later merges undone.
        patch: what `merge_cells` gave.

    Raises:
        ValueError: the patch is not of this weight.
    """
    flat = _flat(weight)
    _check_cells(patch.cells, patch.before, flat)
    if patch.before.dtype != flat.dtype:
        raise ValueError(f"the patch holds {patch.before.dtype}, the weight {flat.dtype}")
    flat.index_copy_(0, patch.cells, patch.before)


def _flat(weight: Tensor) -> Tensor:
    if not weight.is_contiguous() or not weight.is_floating_point():
        layout = "contiguous" if weight.is_contiguous() else "not contiguous"
        raise ValueError(f"a weight of {weight.dtype}, {layout}, takes no patch")
    return weight.view(-1)


def _check_cells(cells: Tensor, numbers: Tensor, flat: Tensor) -> None:
    if cells.dtype != torch.int64 or cells.shape != numbers.shape or cells.dim() != 1:
        raise ValueError(f"{list(cells.shape)} cells, {list(numbers.shape)} numbers")
    if cells.numel() == 0:
        return
    fits = (cells[0] >= 0) & (cells[-1] < flat.numel()) & (cells[1:] > cells[:-1]).all()
    if not bool(fits):
        first, last = int(cells.min()), int(cells.max())
        raise ValueError(f"cells {first}..{last} do not ascend within 0..{flat.numel() - 1}")

"""Merge a sparse delta into a weight: n cells cost n, whatever the size of the weight."""

import torch
from torch import Tensor


@torch.inference_mode()
def merge_cells(weight: Tensor, cells: Tensor, addends: Tensor) -> None:
    """Write `weight + addends` into some cells of a weight, rounded once.

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
    # Torch promotes: half precision is summed in float32, float64 in itself.
    merged = flat.index_select(0, cells) + addends
    flat.index_copy_(0, cells, merged.to(flat.dtype))


def _flat(weight: Tensor) -> Tensor:
    if not weight.is_contiguous() or not weight.is_floating_point():
        layout = "contiguous" if weight.is_contiguous() else "not contiguous"
        raise ValueError(f"a weight of {weight.dtype}, {layout}, cannot be merged into")
    return weight.view(-1)


def _check_cells(cells: Tensor, addends: Tensor, flat: Tensor) -> None:
    if cells.dtype != torch.int64 or cells.shape != addends.shape or cells.dim() != 1:
        raise ValueError(f"{list(cells.shape)} cells, {list(addends.shape)} addends")
    if cells.numel() == 0:
        return
    fits = (cells[0] >= 0) & (cells[-1] < flat.numel()) & (cells[1:] > cells[:-1]).all()
    if not bool(fits):
        first, last = int(cells.min()), int(cells.max())
        raise ValueError(f"cells {first}..{last} do not ascend within 0..{flat.numel() - 1}")

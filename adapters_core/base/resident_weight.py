"""A weight of the resident base, to hold a file's copy of it against."""

import torch
from torch import Tensor

#: From the most precise mantissa to the least.
_PRECISION = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
#: Rows compared at once: what is converted for that stays small.
_ROWS = 4096


class ResidentWeight:
    """Knows whether a tensor is this weight, whatever precision each was loaded or saved in."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight  # the parameter, which stays with its model when that moves

    @torch.inference_mode()
    def is_same(self, copy: Tensor, dtype: torch.dtype) -> bool:
        """Return whether a copy holds this weight's every value.

        Args:
            copy: any floating dtype; its values are those of `dtype`.
            dtype: the file's. Both are compared in the less precise dtype of the two.
        """
        own = self._weight.detach()
        if copy.shape != own.shape or dtype not in _PRECISION or own.dtype not in _PRECISION:
            return False
        common = max(dtype, own.dtype, key=_PRECISION.index)
        return all(
            torch.equal(mine.to(common), theirs.to(own.device, common))
            for mine, theirs in zip(torch.split(own, _ROWS), torch.split(copy, _ROWS), strict=True)
        )

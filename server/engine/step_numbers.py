"""The numbers of a step on their way to a device: pieces of one copy, and the host goes on.

A copy from memory that the host may change at once makes it wait for everything that the device has
yet to do, and a step has a dozen lists of numbers. From pinned memory the device copies by itself;
torch gives such memory away again only when the copy is done.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

#: A step of 2048 rows with two banks has a tenth of this.
_COPY_BYTES = 1 << 20
#: Where each piece begins, for any dtype and wide loads.
_ALIGNED_BYTES = 16


class StepNumbers:
    """Makes tensors on a device, whose numbers are there after `send`; on a CPU at once.

    Args:
        device: where the tensors are to be.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_whole = goes_at_once(device)
        self._host = self._there = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def put(self, numbers: Sequence[object], dtype: torch.dtype = torch.int64) -> Tensor:
        """Return a tensor of numbers, or of lists of numbers; nothing may read it before `send`."""
        made = torch.tensor(numbers, dtype=dtype)
        if self._is_whole:
            return made
        if self._used + made.nbytes > len(self._host):
            self.send()
            self._begin(max(_COPY_BYTES, made.nbytes))
        place = slice(self._used, self._used + made.nbytes)
        self._used += -(-made.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
        self._host[place].view(dtype).view(made.shape).copy_(made)
        return self._there[place].view(dtype).view(made.shape)

    def send(self) -> None:
        """Begin to copy what was put; work that is given to the device afterwards finds it."""
        if self._used:
            self._there[: self._used].copy_(self._host[: self._used], non_blocking=True)
        self._host, self._used = self._host[:0], 0

    def _begin(self, num_bytes: int) -> None:
        pinned = self._device.type == "cuda"
        self._host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=pinned)
        self._there = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)


def goes_at_once(device: torch.device) -> bool:
    """Return whether the host's own tensors are the device's."""
    return device.type == "cpu"

"""From host memory to a device: what belongs together goes in one copy, from pinned memory.

A GPU reads pinned memory by itself; from other memory the host first moves what is copied, and
waits. Each copy costs microseconds however short it is, and an adapter has hundreds of tensors.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adapters_core.contract.layer import Coefficients

#: Where each tensor begins in a copy, for any dtype and wide loads.
_ALIGNED_BYTES = 16
#: Pinned memory is never given back to the system: more at once is copied from other memory.
_PINNED_BYTES = 256 << 20


def uploaded(
    layers: Mapping[str, Coefficients], device: torch.device
) -> Mapping[str, Coefficients]:
    """Return the coefficients of an adapter's layers on a device; on a CPU they are there.

    What layers share is copied once, and is one tensor there, too.
    """
    if device.type == "cpu":
        return layers
    own = {id(tensor): tensor for layer in layers.values() for tensor in layer.values()}
    there = dict(zip(own, copied(list(own.values()), device), strict=True))
    return {
        target: {name: there[id(tensor)] for name, tensor in layer.items()}
        for target, layer in layers.items()
    }


def copied(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return tensors of host memory on a device: pieces of one copy, which may still run."""
    starts = [0]
    for tensor in tensors:
        starts.append(starts[-1] + -(-tensor.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES)
    host = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=_goes_pinned(starts[-1], device))
    for tensor, piece in zip(tensors, _pieces(host, tensors, starts), strict=True):
        piece.copy_(tensor)
    return _pieces(host.to(device, non_blocking=True), tensors, starts)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of host memory on a device, itself on a CPU; its copy may still run."""
    return staged(tensor, device).to(device, non_blocking=True)


def staged(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of host memory so that a device may copy it while the host goes on."""
    if tensor.device.type != "cpu" or not _goes_pinned(tensor.nbytes, device):
        return tensor
    return tensor.pin_memory()  # itself, where it is pinned already


def _goes_pinned(num_bytes: int, device: torch.device) -> bool:
    return device.type == "cuda" and num_bytes <= _PINNED_BYTES


def _pieces(buffer: Tensor, like: Sequence[Tensor], starts: Sequence[int]) -> list[Tensor]:
    """Return the pieces of a buffer of bytes that have the dtypes and shapes of tensors."""
    return [
        buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for start, tensor in zip(starts, like, strict=False)
    ]

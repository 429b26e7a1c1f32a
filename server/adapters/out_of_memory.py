"""Which exceptions say that a device's memory, or the host's, is used up."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; on a CPU torch raises a plain RuntimeError for that."""
    is_one = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_one or "can't allocate memory" in str(error)


def give_back_cached(device: torch.device) -> None:
    """Have the device's allocator give back what it holds and no tensor uses."""
    if device.type == "cuda":
        torch.cuda.empty_cache()

"""Where Triton's kernels run: on a GPU, or on a CPU by its interpreter, for tests.

Triton is no dependency of its own: torch's builds for a GPU bring it on Linux. Without it torch's
operations serve. The interpreter is chosen when kernels are imported, by TRITON_INTERPRET=1 in the
environment; it runs them a hundred thousand times slower.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

_is_interpreted = False


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Args:
        kernel: made by `triton.jit`.
        grid: programs along each axis.
        args: by the names of its parameters, constants and options of the compiler among them.
        num_bytes: that it reads and writes in memory, each once.
    """

    kernel: Any
    grid: tuple[int, ...]
    args: dict[str, Any]
    num_bytes: int


_listener: Callable[[Launch], None] | None = None


def launch(kernel: Any, grid: tuple[int, ...], num_bytes: int, **args: Any) -> None:
    """Run a kernel; over tensors without values (device "meta") it is counted only."""
    if _listener is not None:
        _listener(Launch(kernel, grid, args, num_bytes))
    tensors = [arg for arg in args.values() if isinstance(arg, torch.Tensor)]
    if any(tensor.is_meta for tensor in tensors):
        return
    with torch.cuda.device_of(tensors[0]):  # Triton launches on the current one
        kernel[grid](**args)


@contextmanager
def listening(listener: Callable[[Launch], None]) -> Iterator[None]:
    """Let `listener` hear of every launch within the block."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def runs_on(device: torch.device) -> bool:
    """Return whether kernels run on a device; else torch's operations do."""
    has_them = device.type in ("cuda", "meta") or _is_interpreted
    return has_them and find_spec("triton") is not None


@contextmanager
def interpreted() -> Iterator[None]:
    """Let kernels run on the CPU, by the interpreter, in what is made within the block."""
    global _is_interpreted
    before, _is_interpreted = _is_interpreted, True
    try:
        yield
    finally:
        _is_interpreted = before

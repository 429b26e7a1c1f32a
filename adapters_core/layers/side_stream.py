"""Work on a GPU beside what its current stream does meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch


class SideStream:
    """Forks from the current stream and joins it again; on a CPU work is done at once.

    A recording of the current stream holds the fork and the join, too. Tensors made within a fork
    must live until the join.
    """

    def __init__(self) -> None:
        self._forked: torch.cuda.Stream | None = None

    @contextmanager
    def forked(self, device: torch.device) -> Iterator[None]:
        """Do the block's work behind what the current stream has been given so far."""
        if device.type != "cuda":
            yield
            return
        side = _side_of(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            yield
        self._forked = side

    def join(self) -> None:
        """Let the current stream wait for what was forked."""
        if self._forked is not None:
            torch.cuda.current_stream(self._forked.device).wait_stream(self._forked)
            self._forked = None


@lru_cache(maxsize=16)
def _side_of(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream

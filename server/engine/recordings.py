"""Recordings of launches on a GPU: made on one stream, and ended together.

A recording holds the address of cuBLAS's workspace of the stream that it was made on, and the end
of any recording frees that workspace for all others (pytorch issue 193402): a later replay writes
to memory that is not its own. So no recording outlives another one of its generation, and all of
them are ended by `retire`, behind everything that still runs.

A failed recording leaves torch's allocator in a state of its own. After the first one nothing is
recorded any more in this process.
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

_LOG = logging.getLogger("overtone.recordings")

Run = Callable[[], Tensor]


class Maker(Protocol):
    """Makes recordings on a device."""

    def __call__(self, run: Run) -> Run:
        """Return a function that replays `run`; it overwrites the tensor that `run` returned."""

    def retire(self) -> None:
        """End all recordings, once nothing runs on the device."""


class Recordings:
    """Makes recordings until one fails.

    Args:
        make: of the device.
    """

    def __init__(self, make: Maker) -> None:
        self._make = make
        self._observe: Callable[[bool], None] = lambda ok: None
        #: Why nothing is recorded any more; None while recording goes on.
        self.failure: str | None = None
        #: Counts how often all recordings ended; those of earlier ones may not be replayed.
        self.generation = 0

    def tell(self, observe: Callable[[bool], None]) -> None:
        """Call `observe` now, and when it changes, with whether recording goes on."""
        self._observe = observe
        observe(self.failure is None)

    def record(self, run: Run) -> Run | None:
        """Return a function that replays `run`; None if nothing is recorded any more."""
        if self.failure is not None:
            return None
        try:
            return self._make(run)
        except Exception as error:  # whatever a library raises while its launches are recorded
            self.failure = f"{type(error).__name__}: {error}"
            _LOG.warning("steps are not recorded any more, and run slower: %s", self.failure)
            self._observe(False)
            return None

    def retire(self) -> None:
        """End all recordings; none of them may be replayed afterwards."""
        self.generation += 1
        # After a failure they are kept, unused: ending them may fail as well.
        if self.failure is None:
            self._make.retire()


class CudaMaker:
    """Records CUDA graphs on one stream and in one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._pool: Any = None

    def __call__(self, run: Run) -> Run:
        """Return a function that replays `run`."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            run()  # libraries set up what they need for this stream
        current.wait_stream(self._stream)
        torch.cuda.synchronize(self._device)
        graph, out = self._captured(run)

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    def _captured(self, run: Run) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Return a recording and what it writes to.

        Not by `torch.cuda.graph`: that empties torch's store of freed memory each time, and after
        a failure leaves its stream the current one.
        """
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            # Loaders' threads may allocate meanwhile: only this thread's calls are restricted.
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                out = run()
            finally:
                graph.capture_end()
        self._graphs.append(graph)
        return graph, out

    def retire(self) -> None:
        """End all recordings and give back their pool, and the workspaces that they used."""
        torch.cuda.synchronize(self._device)
        for graph in self._graphs:
            graph.reset()
        self._graphs, self._pool = [], None
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()  # until then the pool's memory stays with torch, for nothing


@lru_cache(maxsize=16)
def recordings_on(device: torch.device) -> Recordings | None:
    """Return what records on a device, the same one for equal arguments; None on a CPU."""
    return Recordings(CudaMaker(device)) if device.type == "cuda" else None

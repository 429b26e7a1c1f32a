"""Loads and merges on a GPU run on a stream of their own: no step stands behind one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Streams(threading.local):
    """The streams of a thread's loads, by device."""

    def __init__(self) -> None:
        self.by_device: dict[torch.device, torch.cuda.Stream] = {}


_streams = _Streams()


@contextmanager
def loading(device: torch.device, behind_steps: bool = True) -> Iterator[None]:
    """Do a load's work beside the steps; when the block ends the device has done it.

    The work begins behind what the current stream, which is that of the steps, has been given so
    far: it may write over memory that these still read. Steps wait for nothing, for nothing of
    the load is known to them before the block has ended. The host's thread sleeps until then.
    Work that only reads what was there before need not be `behind_steps`.

    Memory that steps will read must come from before the block: what is allocated within belongs
    to the load's stream, and is given away again without regard to others. On a CPU and without
    values (device "meta") this does nothing.
    """
    if device.type != "cuda":
        yield
        return
    stream = _stream_of(device)
    if behind_steps:
        stream.wait_stream(torch.cuda.current_stream(device))
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    try:
        with torch.cuda.stream(stream):
            yield
    finally:  # what a failed load has begun still writes to memory that is given up now
        done.record(stream)
        done.synchronize()


def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of this thread's loads."""
    own = _streams.by_device
    if device not in own:
        own[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return own[device]

"""Loads and merges on a GPU run on a stream of their own: no step stands behind one."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Streams that no load uses, by device. torch has 32 in all and gives them out again and again:
#: with one for each thread that ever loads, a load would get the stream that steps are recorded on.
_idle: defaultdict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)


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
    stream = _taken(device)
    if behind_steps:
        stream.wait_stream(torch.cuda.current_stream(device))
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    try:
        with torch.cuda.stream(stream):
            yield
    finally:  # what a failed load has begun still writes to memory that is given up now
        done.record(stream)
        done.synchronize()
        _idle[device].append(stream)


def _taken(device: torch.device) -> torch.cuda.Stream:
    """Return a stream that no other load uses."""
    try:
        return _idle[device].pop()
    except IndexError:
        return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

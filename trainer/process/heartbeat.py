"""Heartbeats of a job's process to the worker that started it: bytes through a pipe.

The heartbeats in the registry show that any thread of the process runs, and none arrive while the
registry is down. These come from the training itself, with each report and each question whether
to go on. A process that sends none for long hangs, and its worker ends it.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

#: Between two bytes; the limit of a silence is minutes.
_PERIOD_S = 0.5
#: The most that one poll adds to a silence: a worker that was itself suspended saw none.
_MOST_S = 1.0
Clock = Callable[[], float]


class Heartbeat:
    """The process's end.

    Args:
        pipe: to write to; None sends nothing.
        clock: seconds, monotonic.
    """

    def __init__(self, pipe: int | None, clock: Clock = time.monotonic) -> None:
        self._pipe, self._clock, self._next = pipe, clock, 0.0
        if pipe is not None:
            os.set_blocking(pipe, False)
            os.set_inheritable(pipe, False)

    def __call__(self) -> None:
        """Send that the job made progress; cheap, never blocks, safe from any thread."""
        now = self._clock()
        if self._pipe is None or now < self._next:
            return
        self._next = now + _PERIOD_S
        with suppress(OSError):  # the pipe is full of unread bytes, or the worker has ended
            os.write(self._pipe, b".")


class HeartbeatMonitor:
    """The worker's end.

    Args:
        pipe: to read from; closed by `close`.
        clock: seconds, monotonic.
    """

    def __init__(self, pipe: int, clock: Clock = time.monotonic) -> None:
        self._pipe, self._clock = pipe, clock
        self._polled, self.silent_s = clock(), 0.0
        os.set_blocking(pipe, False)

    def poll(self) -> None:
        """Read the pipe and update `silent_s`, the seconds since the last heartbeat."""
        now = self._clock()
        since, self._polled = now - self._polled, now
        self.silent_s = 0.0 if self._read() else self.silent_s + min(since, _MOST_S)

    def close(self) -> None:
        """Close the pipe. Safe to call twice."""
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)

    def _read(self) -> bool:
        try:
            return self._pipe >= 0 and bool(os.read(self._pipe, 1 << 16))
        except BlockingIOError:
            return False

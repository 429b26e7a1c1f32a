"""A job's signs of progress, from its process to the worker that started it: bytes through a pipe.

The registry hears of a job as long as any thread of it lives, and nothing while it is down. Here
the training itself says that it goes on: at each question what it is to do, at each piece of news.
A process that says nothing for long hangs, and its worker ends it.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

#: Between two bytes; a silence is counted in minutes.
_PERIOD_S = 0.5
#: The most that one look counts: a worker that was away itself has not heard a silence.
_MOST_S = 1.0
Clock = Callable[[], float]


class Heartbeat:
    """The process's end.

    Args:
        pipe: to write to; None says nothing to anybody.
        clock: seconds that only go forward.
    """

    def __init__(self, pipe: int | None, clock: Clock = time.monotonic) -> None:
        self._pipe, self._clock, self._next = pipe, clock, 0.0
        if pipe is not None:
            os.set_blocking(pipe, False)
            os.set_inheritable(pipe, False)

    def __call__(self) -> None:
        """Say that something was done; cheap, never waits, safe from any thread."""
        now = self._clock()
        if self._pipe is None or now < self._next:
            return
        self._next = now + _PERIOD_S
        with suppress(OSError):  # full: the worker has enough to read. Broken: it is gone
            os.write(self._pipe, b".")


class HeartbeatMonitor:
    """The worker's end.

    Args:
        pipe: to read from; closed by `close`.
        clock: seconds that only go forward.
    """

    def __init__(self, pipe: int, clock: Clock = time.monotonic) -> None:
        self._pipe, self._clock = pipe, clock
        self._looked, self.seconds = clock(), 0.0
        os.set_blocking(pipe, False)

    def listen(self) -> None:
        """Count how long nothing was heard; called every moment."""
        now = self._clock()
        since, self._looked = now - self._looked, now
        self.seconds = 0.0 if self._heard() else self.seconds + min(since, _MOST_S)

    def close(self) -> None:
        """Listen no more. Safe to call twice."""
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)

    def _heard(self) -> bool:
        try:
            return self._pipe >= 0 and bool(os.read(self._pipe, 1 << 16))
        except BlockingIOError:
            return False

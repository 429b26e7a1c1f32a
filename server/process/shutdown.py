"""Graceful shutdown: open requests are answered within a grace; a second signal ends at once.

The first SIGTERM or Ctrl-C closes the port. Open requests go on for as long as the grace; those
left then fail with an error that says so, in the middle of a stream too. Nothing hangs.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

_LOG = logging.getLogger("overtone")
#: Time for the last errors to reach their callers; then connections are cut.
_LAST_WORDS_S = 5.0


class GracefulServer(uvicorn.Server):
    """uvicorn's server with this shutdown.

    Args:
        config: uvicorn's own; its limit for a shutdown is set here.
        grace_s: how long open answers may take after the signal.
        fail_open: fails the requests that are still open then; called on another thread.
        abandon: called first with the signal's number; ends the process if it is still starting.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        grace_s: float,
        fail_open: Callable[[], None],
        abandon: Callable[[int], None] = lambda number: None,
    ) -> None:
        config.timeout_graceful_shutdown = int(grace_s + _LAST_WORDS_S)
        super().__init__(config)
        self._grace_s = grace_s
        self._fail_open = fail_open
        self._abandon = abandon
        self._ended_by: int | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal; return after SIGTERM, raise KeyboardInterrupt after Ctrl-C."""
        if threading.current_thread() is not threading.main_thread():
            super().run(sockets)
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._end_unless_over) for number in numbers}
        try:
            super().run(sockets)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._ended_by == signal.SIGINT:
            raise KeyboardInterrupt

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown at the first signal; end at once at the second."""
        if self.should_exit:
            _die_by(sig)
        self._abandon(sig)
        self._ended_by = sig
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for open requests as long as the grace allows."""
        limit = asyncio.create_task(self._fail_after_grace())
        try:
            await super().shutdown(sockets)
        finally:
            limit.cancel()
            await asyncio.gather(limit, return_exceptions=True)

    async def _fail_after_grace(self) -> None:
        await asyncio.sleep(self._grace_s)
        _LOG.warning("the grace of %g s is over; open requests fail", self._grace_s)
        await asyncio.to_thread(self._fail_open)

    def _end_unless_over(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal from before uvicorn listens for it, or its echo when uvicorn has ended."""
        if not self.should_exit:
            self._abandon(sig)
            _die_by(sig)


def _die_by(sig: int) -> None:
    """End this process as an uncaught signal does, without waiting for threads."""
    signal.signal(sig, signal.SIG_DFL)
    os.kill(os.getpid(), sig)

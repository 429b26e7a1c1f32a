"""An answer that its reader leaves unread, and the end of its connection."""

import asyncio
import fcntl
import struct
import sys
import termios

from server.api.pace import Pace

#: So often is looked, within the time that a reader may stall.
_LOOKS = 6


class UnreadAnswer:
    """Cuts a connection whose peer does not read what was sent to it.

    Bytes count as read when they have left this machine: a client's program may be slower than its
    system, whose buffers take megabytes, and the kernel reports room only after a third of its own.

    Args:
        transport: of the connection.
        loop: that it runs on.
        stall_s: seconds that a reader may stall.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, stall_s: float
    ) -> None:
        self._transport, self._loop, self._stall_s = transport, loop, stall_s
        self._pace = Pace(stall_s)
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Watch the reader from now on: more is to be sent than the system takes."""
        if self._timer is None:
            self._pace, self._left = Pace(self._stall_s), self._num_unread()
            self._wait()

    def end(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._stall_s / _LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        left = self._num_unread()
        self._pace.moved(max(0, self._left - left), self._stall_s / _LOOKS)
        self._left = left
        if self._pace.patience_s > 0:
            self._wait()
        else:
            self._transport.abort()

    def _num_unread(self) -> int:
        """Return the bytes that the peer's system has not taken."""
        size: int = self._transport.get_write_buffer_size()
        return size + _num_in_kernel(self._transport.get_extra_info("socket").fileno())


def _num_in_kernel(number: int) -> int:
    """Return the bytes that the kernel holds for a socket; 0 where it does not say."""
    if sys.platform != "linux":
        return 0
    try:
        (size,) = struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0
    return int(size)

"""Single keys from a terminal, while something else is shown; the terminal is left as it was."""

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import termios
    import tty
except ImportError:  # Windows: nothing is read, and Ctrl-C ends
    termios = None  # type: ignore[assignment]


class Keyboard:
    """Reads keys as they are pressed, without showing them.

    Args:
        descriptor: of the terminal; None for none.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def key(self, seconds: float) -> str | None:
        """The next key, or None if none is pressed for so long."""
        if self._descriptor is None:
            time.sleep(seconds)
            return None
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return None
        read = os.read(self._descriptor, 1)
        if not read:  # the terminal is gone
            raise KeyboardInterrupt
        return read.decode("ascii", "ignore")


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """A keyboard, if standard input is a terminal."""
    if termios is None or not sys.stdin.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

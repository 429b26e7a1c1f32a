"""Wait for what other threads and processes do, with a deadline."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], timeout_s: float = 60.0) -> T:
    """Return the condition's first true value; fail after the deadline."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, "not true before the deadline"
        pause.wait(0.002)
    return value


def listens(place: Path) -> bool:
    """Whether connections are taken at a Unix socket; its file is there a little earlier."""
    with socket.socket(socket.AF_UNIX) as tried:
        try:
            tried.connect(str(place))
        except OSError:
            return False
        return True

"""Lowers the priority of a job's process below everything else on its machine.

Niceness alone does not suffice. Where Linux groups processes by session (autogroup, usual outside
of containers), cores are divided among sessions first, and within each by niceness: a process that
is alone in its session gets as much of a core as the server, whatever its niceness. The group has
a niceness of its own, which is set here.

SCHED_IDLE does not help: alone in its group, such a process is hardly ever preempted.
"""

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

_GROUP = Path("/proc/self/autogroup")
#: Without privileges the kernel accepts one such write in 0.1 s, of all processes together.
_TRIES, _WAIT_S = 20, 0.1


def lower_priority(nice: int, group: Path = _GROUP) -> None:
    """Add to this process's niceness, and to that of the session if this is its first process.

    Processes that are started later inherit both. Where the system refuses, nothing else changes.
    """
    nice = os.nice(nice)
    if nice > 0 and os.getsid(0) == os.getpid() and group.exists():
        try:
            _write(group, nice)
        except OSError as error:  # a container's /proc may be read-only
            log.info("this process's session keeps its share of the cores: %s", error)


def _write(group: Path, nice: int) -> None:
    for left in reversed(range(_TRIES)):
        try:
            group.write_text(str(nice))
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(_WAIT_S)

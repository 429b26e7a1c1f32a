"""A job steps back behind everything else on its machine.

Niceness alone does not do it. Where Linux groups processes by session (autogroup, the usual setting
outside of containers), cores are shared out among sessions first, and within each by niceness: a
process that is alone in its session has as much of a core as the server, however nice it is. The
group has a niceness of its own.

SCHED_IDLE would not do: alone in its group, such a process is hardly ever taken off its core.
"""

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

_GROUP = Path("/proc/self/autogroup")
#: Without privileges the kernel takes one such word in a tenth of a second, of all processes.
_TRIES, _WAIT_S = 20, 0.1


def lower_priority(nice: int, group: Path = _GROUP) -> None:
    """Add to this process's niceness; a session of its own, whose first process it is, gets it too.

    What is started afterwards inherits both. A system that does not take it costs nothing but that.
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

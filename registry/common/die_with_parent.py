"""Become another program that ends when the process which started this one dies.

    python -I -S die_with_parent.py PARENT_PID PROGRAM ARGUMENT...

On Linux the kernel sends SIGTERM when the starting *thread* ends, so start it from one that lives
as long as the program should. Elsewhere the program outlives a killed parent, and its next user
finds it by its socket. This file imports nothing of ours: it runs without any installed package.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tied(command: list[str]) -> list[str]:
    """Return the command line of a program that ends when this process does."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(parent: int, command: list[str]) -> None:
    """Tie this process to its parent and replace it by `command`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the tie was made
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

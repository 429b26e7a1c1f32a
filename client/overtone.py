"""The program `overtone`, also `python -m overtone`: a signal ends it in one line from the start.

Importing what the commands need takes a noticeable moment, in which Ctrl-C would print where it
has come to.
"""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the program and exit."""
    before = signal.signal(signal.SIGINT, _end)
    from overtone_client.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _end(number: int, _frame: FrameType | None) -> None:
    """End the process at once, without the cleanup of modules that are half imported."""
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()

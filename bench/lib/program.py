"""What all programs share: a parser and a `run_program` that report errors in one line."""

import argparse
import math
import sys
from collections.abc import Callable
from typing import NoReturn

from overtone_client import InvalidArgument, OvertoneError

_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Raises InvalidArgument where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise InvalidArgument(f"{message}; {self.prog} --help shows the options")


def positive(text: str) -> float:
    """Return a finite number above 0; argparse names the option if it is none."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def run_program(main: Callable[[], None]) -> int:
    """Run a program by itself and return its exit code; errors that say it all are one line."""
    try:
        main()
    except OvertoneError as error:
        print(f"error: {error.code}: {error.message}", file=sys.stderr)
        return _MISUSED if isinstance(error, InvalidArgument) else _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0

"""`python -m bench NAME [OPTION ...]`: one program by itself, as `./run bench` starts it."""

import sys
from collections.abc import Sequence

from bench.command import PROGRAMS, run
from bench.lib.program import run_program
from overtone_client import InvalidArgument


def main(arguments: Sequence[str]) -> None:
    """Run the program that is named first with the options behind it."""
    name = arguments[0] if arguments else ""
    if name not in PROGRAMS:
        raise InvalidArgument(f"no program {name!r}; there are {', '.join(PROGRAMS)}")
    run(name, list(arguments[1:]))


if __name__ == "__main__":
    sys.exit(run_program(lambda: main(sys.argv[1:])))

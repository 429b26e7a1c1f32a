"""`overtone serve` with one change: a coin decides most requests' modes.

So every adapter is served both ways, often at once, and both caches are always too small. One
request in three is left to the planner.
"""

import sys
from random import Random

from server.adapters.modes import Mode
from server.planning.placement import Placed, Placement


def toss() -> None:
    """Make every placement of this process toss a coin."""
    place, random = Placement.place, Random(7)

    def tossed(
        self: Placement,
        digest: str | None,
        prompt: int = 1,
        answer: int = 1,
        num_open: int = 0,
        mode: Mode | None = None,
    ) -> Placed:
        chosen: Mode | None = mode or random.choice(("factored", "merged", None))
        return place(self, digest, prompt, answer, num_open, chosen)

    Placement.place = tossed  # type: ignore[method-assign]


if __name__ == "__main__":
    from server.process.launch import launch
    from server.settings import read_settings

    toss()
    given = [argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:]]
    sys.exit(launch(read_settings(**{name.replace("-", "_"): value for name, value in given})))

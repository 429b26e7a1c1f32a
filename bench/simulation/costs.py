"""What a replica's work costs, in seconds and bytes, as measured; and what it can take of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from overtone_client import InvalidArgument
from server.planning.costs import Curve


@dataclass(frozen=True)
class Costs:
    """Of one kind of adapter on one processor.

    Args:
        step: seconds of a step by its rows, single tokens and prompts' tokens together.
        apart_s: what each further adapter in a step adds; 0 where a step mixes adapters.
        load_s: from an adapter's file to its first use.
        adapter_bytes: memory of a resident adapter.
    """

    step: Curve
    apart_s: float
    load_s: float
    adapter_bytes: int

    def seconds(self, rows: int, adapters: int) -> float:
        """Return the seconds of a step of so many rows of so many adapters."""
        return self.step.at(rows) + self.apart_s * max(0, adapters - 1)

    def shown(self) -> dict[str, Any]:
        """Return what `parse` reads."""
        return {
            "step": [list(point) for point in self.step.points],
            "apart_s": self.apart_s,
            "load_s": self.load_s,
            "adapter_bytes": self.adapter_bytes,
        }

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> "Costs":
        """Return the costs that `shown` returned.

        Raises:
            InvalidArgument: a field is missing, is no number, or makes no sense.
        """
        try:
            points = tuple((int(rows), float(seconds)) for rows, seconds in given["step"])
            apart_s, load_s = float(given["apart_s"]), float(given["load_s"])
            size = int(given["adapter_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgument(f"costs are not understood: {error!r}") from error
        rows = [point[0] for point in points]
        is_rising = bool(rows) and rows[0] > 0 and rows == sorted(set(rows))
        if not is_rising or not all(0 < seconds < float("inf") for _, seconds in points):
            raise InvalidArgument("costs: a step needs [rows, seconds] above 0, rows ascending")
        if not (0 <= apart_s < float("inf") and 0 <= load_s < float("inf") and size > 0):
            raise InvalidArgument("costs: no seconds below 0, and an adapter has at least a byte")
        return cls(Curve(points), apart_s, load_s, size)


@dataclass(frozen=True)
class Limits:
    """Of one replica.

    Args:
        memory: bytes for resident adapters.
        running: requests that run at a time.
        rows: of one step; longer prompts take several.
    """

    memory: int
    running: int = 32
    rows: int = 288

    def capacity(self, costs: Costs, prompt: float, output: float) -> float:
        """Return the requests a second that one replica can serve when all its places are taken.

        Args:
            costs: of adapters that steps mix.
            prompt: mean tokens of one.
            output: mean tokens of an answer.
        """
        rows = self.running * (1 + prompt / output)
        return self.running / (output * costs.step.at(rows))

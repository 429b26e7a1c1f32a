"""Which holders of claims have sent no heartbeat for a while, by one process's own clock.

The time is counted here, between looks, so that neither another machine's clock nor an outage of
the registry makes a living holder look dead.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Held(Protocol):
    """A record with a claim and its heartbeats."""

    @property
    def id(self) -> str:
        """Return what tells the record from all others."""

    @property
    def fence(self) -> int:
        """Return the number of the latest claim."""

    @property
    def beats(self) -> int:
        """Return the heartbeats since that claim."""


H = TypeVar("H", bound=Held)


@dataclass(frozen=True)
class _Sight:
    """When a claim was first seen with this number of heartbeats."""

    fence: int
    beats: int
    since: float


class Silence:
    """One process's looks at claims.

    Args:
        lost_after_s: without a heartbeat, a claim is stale.
    """

    def __init__(self, lost_after_s: float) -> None:
        self._lost_after_s = lost_after_s
        self._seen: dict[str, _Sight] = {}
        self._looked: float | None = None

    def begin(self, at: float) -> None:
        """Begin a look: one that is not ended, or too late, makes the next start counting anew.

        Args:
            at: seconds, monotonic.
        """
        before, self._looked = self._looked, None
        if before is None or at - before > self._lost_after_s:  # this process was suspended
            self._seen.clear()

    def stale(self, held: Iterable[H], at: float) -> list[H]:
        """Return those of all claims that are stale."""
        seen, stale = {}, []
        for record in held:
            sight = self._seen.get(record.id)
            if sight is None or (sight.fence, sight.beats) != (record.fence, record.beats):
                sight = _Sight(record.fence, record.beats, at)
            seen[record.id] = sight
            if at - sight.since >= self._lost_after_s:
                stale.append(record)
        self._seen = seen
        return stale

    def end(self, at: float) -> None:
        """End a look: nothing went wrong in it."""
        self._looked = at

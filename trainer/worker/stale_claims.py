"""Looks after jobs that nobody looks after: of dead workers, and lost on their way into the line.

A job whose holder gave no sign of life for a while is taken back. The while is counted here, from
look to look, so that neither another machine's clock nor a registry that was down can make a
living worker look dead.
"""

import logging
from dataclasses import dataclass

from registry.jobs.claims import Claims

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sight:
    """When a job was first seen with this many beats of this fence."""

    fence: int
    beats: int
    since: float


class StaleClaims:
    """One worker's eye on all jobs of its base.

    Args:
        claims: of the registry.
        base_name: whose jobs.
        lost_after_s: without a sign of life.
    """

    def __init__(self, claims: Claims, base_name: str, lost_after_s: float) -> None:
        self._claims, self._base_name, self._lost_after_s = claims, base_name, lost_after_s
        self._seen: dict[str, _Sight] = {}
        self._looked: float | None = None

    def look(self, at: float, now: float) -> list[str]:
        """Take back what is lost, mend the line, and return the ids that were taken back.

        Args:
            at: seconds that only go forward.
            now: seconds since 1970.

        Raises:
            RegistryUnavailable: nothing is concluded from what was seen before.
        """
        before, self._looked = self._looked, None
        if before is None or at - before > self._lost_after_s:  # we ourselves were away
            self._seen.clear()
        taken = self._look(at, now)
        self._claims.mend(self._base_name, now=now)
        self._looked = at
        return taken

    def _look(self, at: float, now: float) -> list[str]:
        seen, taken = {}, []
        for record in self._claims.held(self._base_name):
            sight = self._seen.get(record.id)
            if sight is None or (sight.fence, sight.beats) != (record.fence, record.beats):
                sight = _Sight(record.fence, record.beats, at)
            seen[record.id] = sight
            if at - sight.since < self._lost_after_s:
                continue
            if self._claims.take_back(record, now=now) is not None:
                log.warning("%s was taken back from %s", record.id, record.worker)
                taken.append(record.id)
        self._seen = seen
        return taken

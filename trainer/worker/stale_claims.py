"""Takes back jobs whose workers died, and repairs the queue.

A job whose claim gets no heartbeat for a while is taken back. The time is counted here, between
checks, so that neither another machine's clock nor an outage of the registry makes a living worker
look dead.
"""

import logging
from dataclasses import dataclass

from registry.jobs.claims import Claims

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sight:
    """When a claim was first seen with this number of heartbeats."""

    fence: int
    beats: int
    since: float


class StaleClaims:
    """One worker's checks of all claims on jobs of its base.

    Args:
        claims: of the registry.
        base_name: of the jobs.
        lost_after_s: without a heartbeat.
    """

    def __init__(self, claims: Claims, base_name: str, lost_after_s: float) -> None:
        self._claims, self._base_name, self._lost_after_s = claims, base_name, lost_after_s
        self._seen: dict[str, _Sight] = {}
        self._checked: float | None = None

    def take_back(self, at: float, now: float) -> list[str]:
        """Take back stale claims, repair the queue, and return the jobs' ids.

        Args:
            at: seconds, monotonic.
            now: seconds since 1970.

        Raises:
            RegistryUnavailable: the next call starts counting anew.
        """
        before, self._checked = self._checked, None
        if before is None or at - before > self._lost_after_s:  # this worker was suspended
            self._seen.clear()
        taken = self._take_back(at, now)
        self._claims.mend(self._base_name, now=now)
        self._checked = at
        return taken

    def _take_back(self, at: float, now: float) -> list[str]:
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

"""Takes back jobs whose workers died, and repairs the queue.

A job whose claim gets no heartbeat for a while is taken back (registry/common/silence.py).
"""

import logging

from registry.common.silence import Silence
from registry.jobs.claims import Claims

log = logging.getLogger(__name__)


class StaleClaims:
    """One worker's checks of all claims on jobs of its base.

    Args:
        claims: of the registry.
        base_name: of the jobs.
        lost_after_s: without a heartbeat.
    """

    def __init__(self, claims: Claims, base_name: str, lost_after_s: float) -> None:
        self._claims, self._base_name = claims, base_name
        self._silence = Silence(lost_after_s)

    def take_back(self, at: float, now: float) -> list[str]:
        """Take back stale claims, repair the queue, and return the jobs' ids.

        Args:
            at: seconds, monotonic.
            now: seconds since 1970.

        Raises:
            RegistryUnavailable: the next call starts counting anew.
        """
        self._silence.begin(at)
        taken = []
        for record in self._silence.stale(self._claims.held(self._base_name), at):
            if self._claims.take_back(record, now=now) is not None:
                log.warning("%s was taken back from %s", record.id, record.worker)
                taken.append(record.id)
        self._claims.mend(self._base_name, now=now)
        self._silence.end(at)
        return taken

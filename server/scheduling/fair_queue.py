"""Waiting sequences in one queue per tenant; the least served tenant comes first.

Each tenant has a counter of the tokens it was served. After a pause the counter is raised to the
least of the active tenants', so that idle time gives no credit. Pure.

The virtual token counter of Sheng et al. 2024, "Fairness in Serving Large Language Models",
arXiv:2401.00588, algorithm 2 (counters, lifting) with its weights: prompt tokens 1, generated 2.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterator

from server.scheduling.sequence import TokenSequence

PROMPT_WEIGHT, GENERATED_WEIGHT = 1.0, 2.0
#: A tenant counts as present for so long after its last arrival.
_MEMORY_S = 60.0
#: A tenant with more waiting sequences than this floods the server.
_BACKLOG = 4


class FairQueue:
    """Waiting sequences by tenant, and what each tenant has been served.

    Args:
        max_age_s: sequences that have waited longer come before all others, the oldest first.
    """

    def __init__(self, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._queues: dict[str, list[TokenSequence]] = {}  # each in order of acceptance
        self._served: dict[str, float] = {}
        self._running: Counter[str] = Counter()
        self._last_arrival: dict[str, float] = {}
        self._num_added = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __contains__(self, sequence: TokenSequence) -> bool:
        return sequence in self._queues.get(sequence.tenant, ())

    def __iter__(self) -> Iterator[TokenSequence]:
        """Yield all in order of acceptance."""
        sequences = (sequence for queue in self._queues.values() for sequence in queue)
        return iter(sorted(sequences, key=lambda sequence: sequence.number))

    @property
    def tenants(self) -> set[str]:
        """Return the tenants with a sequence that waits or runs."""
        return self._queues.keys() | self._running.keys()

    def share(self, total: int) -> int:
        """Return one tenant's equal share of `total`."""
        return total // max(1, len(self.tenants))

    def num_running(self, tenant: str) -> int:
        """Return how many sequences of a tenant run."""
        return self._running[tenant]

    def is_shared(self, now: float) -> bool:
        """Return whether more than one tenant is present, or was a short time ago."""
        self._last_arrival = {
            tenant: arrived
            for tenant, arrived in self._last_arrival.items()
            if now - arrived <= _MEMORY_S or tenant in self.tenants
        }
        return len(self._last_arrival) > 1

    def flooding(self) -> set[str]:
        """Return the tenants that have more waiting sequences than `_BACKLOG`."""
        return {tenant for tenant, queue in self._queues.items() if len(queue) > _BACKLOG}

    def add(self, sequence: TokenSequence) -> None:
        """Add a new sequence."""
        self._num_added += 1
        sequence.number = self._num_added
        self._last_arrival[sequence.tenant] = sequence.arrived
        if sequence.tenant not in self.tenants:
            self._lift(sequence.tenant)
        self._insert(sequence)

    def put_back(self, sequence: TokenSequence) -> None:
        """Move a running sequence back into its queue, in order of acceptance."""
        self._insert(sequence)
        self.end(sequence)

    def start(self, sequence: TokenSequence) -> None:
        """Take a sequence out: it runs now."""
        self._running[sequence.tenant] += 1
        self.remove(sequence)

    def end(self, sequence: TokenSequence) -> None:
        """Note that a running sequence no longer runs."""
        self._running[sequence.tenant] -= 1
        if not self._running[sequence.tenant]:
            del self._running[sequence.tenant]

    def remove(self, sequence: TokenSequence) -> None:
        """Take a waiting sequence out."""
        queue = self._queues[sequence.tenant]
        queue.remove(sequence)
        if not queue:
            del self._queues[sequence.tenant]

    def charge(self, tenant: str, cost: float) -> None:
        """Add to the service that a tenant has received."""
        self._served[tenant] = self._served.get(tenant, 0.0) + cost

    def by_service(self) -> list[str]:
        """Return the tenants, the least served first."""
        return sorted(self.tenants, key=lambda tenant: (self._served.get(tenant, 0.0), tenant))

    def of(self, tenant: str) -> list[TokenSequence]:
        """Return a tenant's waiting sequences, the first accepted first."""
        return list(self._queues.get(tenant, ()))

    def overdue(self, now: float) -> list[TokenSequence]:
        """Return the ready sequences that have waited longer than `max_age_s`, the oldest first.

        Beside other tenants, those with more than `_BACKLOG` waiting sequences are exempt.
        """
        flooding = self.flooding() if len(self.tenants) > 1 else set()
        late = [
            sequence
            for tenant in self._queues.keys() - flooding
            for sequence in self._queues[tenant]
            if now - sequence.arrived > self._max_age_s and sequence.is_ready
        ]
        return sorted(late, key=lambda sequence: sequence.number)

    def _insert(self, sequence: TokenSequence) -> None:
        queue = self._queues.setdefault(sequence.tenant, [])
        insort(queue, sequence, key=lambda other: other.number)

    def _lift(self, tenant: str) -> None:
        """Raise a returning tenant's counter to the least counter of the active tenants."""
        here = [self._served.get(other, 0.0) for other in self.tenants]
        level = min(here, default=0.0)
        self._served = {t: s for t, s in self._served.items() if t in self.tenants or s > level}
        self._served[tenant] = max(level, self._served.get(tenant, 0.0))

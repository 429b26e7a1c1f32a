"""Which waiting inputs make the next batch. Pure: no torch, no clock, no thread.

Tenants with waiting inputs get equally many into the batches; a new or returning tenant starts at
the others' level (start-time fair queueing: Goyal, Vin, Cheng 1997, with an input as the unit).
Within a tenant requests share likewise: every input has a turn, its number within its request
counted from the queue's turn at the request's arrival, so a request of one input overtakes the rest
of a request of two thousand. Every second batch begins with the input that has waited longest:
nothing starves.
"""

from collections.abc import Callable, Hashable, Iterable, Set
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class QueuedInput(Generic[T]):
    """One input in the queue.

    Args:
        item: what is waiting.
        group: inputs of one group may share a batch.
        cost: its part of a batch's budget.
        tenant: that it belongs to.
        turn: set by the queue.
    """

    item: T
    group: Hashable
    cost: int
    tenant: str = ""
    turn: int = 0


@dataclass
class _Share:
    """A tenant's served inputs, counted from the least served tenant's at its arrival; its turn."""

    served: int
    turn: int = 0


@dataclass
class BatchQueue(Generic[T]):
    """The waiting inputs, in the order of their arrival.

    Args:
        max_items: of a batch.
        max_cost: of a batch; one input alone may cost more.
    """

    max_items: int
    max_cost: int
    _waiting: dict[QueuedInput[T], None] = field(default_factory=dict)
    _shares: dict[str, _Share] = field(default_factory=dict)  # of tenants with waiting inputs
    _by_age: bool = True

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    @property
    def entries(self) -> list[QueuedInput[T]]:
        """Return what waits, in the order of arrival."""
        return list(self._waiting)

    def add(self, entries: Iterable[QueuedInput[T]]) -> None:
        """Take the inputs of one request."""
        for number, entry in enumerate(entries):
            if entry.tenant not in self._shares:
                least = min((share.served for share in self._shares.values()), default=0)
                self._shares[entry.tenant] = _Share(least)
            entry.turn = self._shares[entry.tenant].turn + number
            self._waiting[entry] = None

    def remove(self, entry: QueuedInput[T]) -> None:
        """Take one out; nothing happens if it is not in the queue."""
        self._waiting.pop(entry, None)

    def next(self, is_ready: Callable[[T], bool]) -> list[QueuedInput[T]]:
        """Take the next batch out of the queue: of one group; empty if nothing is ready."""
        ready = [entry for entry in self._waiting if is_ready(entry.item)]
        if not ready:
            return []
        self._keep_level({entry.tenant for entry in ready})
        in_order = self._in_order(ready)
        leader = ready[0] if self._by_age else in_order[0]
        self._by_age = not self._by_age
        batch, cost = [leader], leader.cost
        for entry in in_order:
            fits = len(batch) < self.max_items and cost + entry.cost <= self.max_cost
            if entry is not leader and entry.group == leader.group and fits:
                batch.append(entry)
                cost += entry.cost
        self._take_out(batch)
        return batch

    def _keep_level(self, tenants: Set[str]) -> None:
        """Give a tenant without a ready input no credit for the time until one is ready."""
        least = min(self._shares[tenant].served for tenant in tenants)
        for share in self._shares.values():
            share.served = max(share.served, least)

    def _in_order(self, ready: list[QueuedInput[T]]) -> list[QueuedInput[T]]:
        """Order by the tenants' shares, then by the turns within a tenant."""
        served = {name: share.served for name, share in self._shares.items()}
        rank: dict[QueuedInput[T], int] = {}
        for entry in sorted(ready, key=lambda entry: entry.turn):  # stable: by arrival in a turn
            rank[entry] = served[entry.tenant]
            served[entry.tenant] += 1
        return sorted(rank, key=lambda entry: rank[entry])

    def _take_out(self, batch: list[QueuedInput[T]]) -> None:
        turns: dict[str, int] = {}
        for entry in batch:
            del self._waiting[entry]
            self._shares[entry.tenant].served += 1
            turns[entry.tenant] = min(turns.get(entry.tenant, entry.turn), entry.turn)
        for tenant, turn in turns.items():
            self._shares[tenant].turn = max(self._shares[tenant].turn, turn)
        left = {entry.tenant for entry in self._waiting}
        self._shares = {name: share for name, share in self._shares.items() if name in left}

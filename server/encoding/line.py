"""Which waiting inputs make the next batch. Pure: no torch, no clock, no thread.

Requests share what there is: every input has a turn, its number within its request counted from
where the line stood at the request's arrival, so a request of one input passes by the rest of a
request of two thousand. Every second batch is begun by the input that has waited longest: nothing
starves.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class Waiting(Generic[T]):
    """One input in the line.

    Args:
        item: what is waiting.
        group: inputs of one group may share a batch.
        cost: what it takes of a batch's budget.
        turn: set by the line.
    """

    item: T
    group: Hashable
    cost: int
    turn: int = 0


@dataclass
class Line(Generic[T]):
    """The waiting inputs, in the order of their arrival.

    Args:
        max_items: of a batch.
        max_cost: of a batch; one input alone may cost more.
    """

    max_items: int
    max_cost: int
    _waiting: dict[Waiting[T], None] = field(default_factory=dict)
    _turn: int = 0
    _by_age: bool = True

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    @property
    def entries(self) -> list[Waiting[T]]:
        """Return what waits, in the order of arrival."""
        return list(self._waiting)

    def add(self, entries: Iterable[Waiting[T]]) -> None:
        """Take the inputs of one request."""
        for number, entry in enumerate(entries):
            entry.turn = self._turn + number
            self._waiting[entry] = None

    def remove(self, entry: Waiting[T]) -> None:
        """Take one out; nothing happens if it is not in the line."""
        self._waiting.pop(entry, None)

    def next(self, is_ready: Callable[[T], bool]) -> list[Waiting[T]]:
        """Take the next batch out of the line: of one group; empty if nothing is ready."""
        ready = [entry for entry in self._waiting if is_ready(entry.item)]
        if not ready:
            return []
        by_turn = sorted(ready, key=lambda entry: entry.turn)  # stable: by arrival within a turn
        leader = ready[0] if self._by_age else by_turn[0]
        self._by_age = not self._by_age
        batch, cost = [leader], leader.cost
        for entry in by_turn:
            fits = len(batch) < self.max_items and cost + entry.cost <= self.max_cost
            if entry is not leader and entry.group == leader.group and fits:
                batch.append(entry)
                cost += entry.cost
        for entry in batch:
            del self._waiting[entry]
        self._turn = max(self._turn, min(e.turn for e in batch))
        return batch

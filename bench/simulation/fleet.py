"""Many replicas over one time: requests arrive, are placed, and every one is served."""

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from bench.lib.load import Planned
from bench.simulation.placement import Place
from bench.simulation.replica import Replica, Request


class Fleet:
    """Replicas, and what happens there next.

    Args:
        replicas: nothing runs there yet.
        place: chooses one of them for each request.
    """

    def __init__(self, replicas: Sequence[Replica], place: Place) -> None:
        self.replicas, self._place = replicas, place
        self._open = [0] * len(replicas)
        self._events: list[tuple[float, int, int, bool]] = []  # time, order, replica, is a load
        self._order = 0

    def fill(self, adapters: Sequence[int]) -> None:
        """Load adapters on every replica, in no time."""
        for replica in self.replicas:
            replica.residency.fill(adapters)

    def warm(self, adapters: Iterable[int]) -> None:
        """Place requests that take no time, so that memories hold what such traffic leaves."""
        for adapter in adapters:
            self.replicas[self._place(adapter, self._open)].residency.fill([adapter])

    def serve(self, plan: Iterable[Planned]) -> list[Request]:
        """Serve requests, in the order of their arrivals, to the last one's end."""
        served = []
        for planned in plan:
            while self._events and self._events[0][0] <= planned.at_s:
                self._next()
            index = self._place(planned.adapter, self._open)
            request = Request(planned, index)
            served.append(request)
            self._open[index] += 1
            self.replicas[index].accept(request)
            self._begin(index, planned.at_s)
        while self._events:
            self._next()
        return served

    def _next(self) -> None:
        now, _, index, is_load = heappop(self._events)
        replica = self.replicas[index]
        if is_load:
            replica.end_load()
        else:
            self._open[index] -= len(replica.end_step(now))
        self._begin(index, now)

    def _begin(self, index: int, now: float) -> None:
        replica = self.replicas[index]
        self._add(replica.begin_load(), now, index, True)
        self._add(replica.begin_step(), now, index, False)

    def _add(self, seconds: float | None, now: float, index: int, is_load: bool) -> None:
        if seconds is not None:
            self._order += 1
            heappush(self._events, (now + seconds, self._order, index, is_load))

"""From the engine's thread to the event loop: one hand-over per step, however many receivers."""

import asyncio
from contextlib import suppress

from server.generation.runtime import Event, Sink

Numbered = tuple[int, Event]


class Mailbox:
    """Receives the events of one HTTP request's sequences, each with its number."""

    def __init__(self, deliveries: "Deliveries") -> None:
        self._deliveries = deliveries
        self._queue: asyncio.Queue[Numbered] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def sink(self, number: int) -> Sink:
        """Return where the sequence `number` of this request sends its events."""
        return lambda event: self._deliveries.add(self._loop, self._queue, (number, event))

    async def get(self) -> Numbered:
        """Return the next event."""
        return await self._queue.get()


class Deliveries:
    """Collects events on the engine's thread until `flush`."""

    def __init__(self) -> None:
        self._pending: list[
            tuple[asyncio.AbstractEventLoop, asyncio.Queue[Numbered], Numbered]
        ] = []

    def add(
        self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Numbered], event: Numbered
    ) -> None:
        """Keep an event for the next flush; on the engine's thread only."""
        self._pending.append((loop, queue, event))

    def flush(self) -> None:
        """Hand over what was collected; on the engine's thread only."""
        pending, self._pending = self._pending, []
        for loop in {entry[0] for entry in pending}:
            mine = [(queue, event) for other, queue, event in pending if other is loop]
            with suppress(RuntimeError):  # it was closed: nothing of it waits any more
                loop.call_soon_threadsafe(_put_all, mine)


def _put_all(entries: list[tuple[asyncio.Queue[Numbered], Numbered]]) -> None:
    for queue, event in entries:
        queue.put_nowait(event)

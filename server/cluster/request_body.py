"""The body of a request: short ones travel with it, long ones behind it, piece by piece."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ray.util.queue import Queue
from starlette.requests import ClientDisconnect, Request

#: What a plain server takes of anything but uploads; only requests up to this are sent again.
SHORT_BYTES = 8 << 20
#: Of a long body: bytes that are passed on together, and how often they may wait for the replica.
_PIECE_BYTES, _WAITING = 1 << 20, 4


@dataclass(frozen=True)
class Body:
    """A body, or its beginning and a queue with the pieces that follow, then None."""

    first: bytes
    rest: Any = None


@asynccontextmanager
async def received(request: Request) -> AsyncGenerator[Body]:
    """Read a body up to `SHORT_BYTES`; go on with what is longer until the block ends.

    Raises:
        ClientDisconnect: the client has hung up before that.
    """
    pieces = request.stream()
    first = bytearray()
    async for piece in pieces:
        first += piece
        if len(first) > SHORT_BYTES:
            break
    else:
        yield Body(bytes(first))
        return
    queue = Queue(maxsize=_WAITING, actor_options={"num_cpus": 0})
    passing = asyncio.ensure_future(_pass_on(pieces, queue))
    try:
        yield Body(bytes(first), queue)
    finally:
        passing.cancel()
        await asyncio.gather(passing, return_exceptions=True)
        queue.shutdown(force=True)


async def _pass_on(pieces: AsyncGenerator[bytes], queue: Queue) -> None:
    """Put the pieces into the queue, then None; False if the client has hung up."""
    joined = bytearray()
    try:
        async for piece in pieces:
            joined += piece
            if len(joined) >= _PIECE_BYTES:
                await queue.put_async(bytes(joined))
                joined.clear()
        if joined:
            await queue.put_async(bytes(joined))
        await queue.put_async(None)
    except ClientDisconnect:
        await queue.put_async(False)


async def following(queue: Any) -> AsyncGenerator[bytes]:
    """Yield the pieces that `received` passes on.

    Raises:
        ClientDisconnect: the client has hung up.
    """
    while piece := await queue.get_async():
        yield piece
    if piece is False:
        raise ClientDisconnect

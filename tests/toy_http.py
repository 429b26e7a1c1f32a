"""A toy HTTP server in the test's own event loop: it answers every request by a function."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

#: Gets a request's head and the number of the connection; returns bytes, or None to stay silent.
Answer = Callable[[bytes, int], Awaitable[bytes | None]]


@asynccontextmanager
async def answering(answer: Answer, closes: bool = False) -> AsyncIterator[str]:
    """Serve until the block ends, and then until every connection has ended; yields the URL.

    Args:
        closes: end a connection after its first answer.
    """
    tasks: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        number = len(tasks)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                reply = await answer(head, number)
                if reply is not None:
                    writer.write(reply)
                    await writer.drain()
                if closes:
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)

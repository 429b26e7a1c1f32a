"""The listener of a real server: what it accepts answers at once."""

import asyncio
import socket

from server.launch import _listen


def test_small_answers_do_not_wait_for_each_other() -> None:
    """Nagle's algorithm would hold a token back until the one before is acknowledged: 40 ms."""

    async def nodelay() -> int:
        listener = _listen("127.0.0.1", 0)
        assert listener is not None
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            own: socket.socket = writer.get_extra_info("socket")
            accepted.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(on_connection, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            found = await accepted
            writer.close()
            await writer.wait_closed()
        return found

    assert asyncio.run(nodelay()) != 0

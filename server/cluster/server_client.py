"""Ask a plain server over HTTP, byte by byte as a request came, and pass its answer on."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
from yarl import URL

from server.cluster.messages import Forwarded, Head, ReplicaLost, of_answer
from server.cluster.request_body import following

#: Headers that aiohttp would add of its own.
_OWN_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
#: Answers of a known length up to this are passed on in one message.
_WHOLE_BYTES = 4 << 20


class ServerClient:
    """Keeps connections to one server; to be made and used on one event loop.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            skip_auto_headers=_OWN_HEADERS,
        )

    async def answer(self, request: Forwarded) -> AsyncGenerator[Head | bytes]:
        """Yield an answer: its head, with a short body of known length, then further bytes.

        Raises:
            ReplicaLost: the server cannot be reached, or does not send all of it.
        """
        try:
            async with self._sent(request) as response:
                headers = of_answer(response.raw_headers)
                if response.content_length is not None and response.content_length <= _WHOLE_BYTES:
                    body = await response.read()
                    yield Head(response.status, headers, body, is_whole=True)
                    return
                yield Head(response.status, headers)
                async for piece in response.content.iter_any():
                    yield piece
        except aiohttp.ClientError as error:
            raise ReplicaLost(str(error)) from error

    async def whole(self, request: Forwarded, timeout_s: float) -> Head:
        """Return a whole answer.

        Raises:
            ReplicaLost: it did not come in time.
        """
        try:
            async with self._sent(request, timeout_s) as response:
                headers = of_answer(response.raw_headers)
                return Head(response.status, headers, await response.read(), is_whole=True)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ReplicaLost(str(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _sent(
        self, request: Forwarded, timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = [(_text(name), _text(value)) for name, value in request.headers]
        sent: AbstractAsyncContextManager[aiohttp.ClientResponse] = self._session.request(
            request.method,
            URL(self._url + request.target, encoded=True),
            headers=headers,
            data=_data(request),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        )
        return sent


def _data(request: Forwarded) -> Any:
    """Return the body in aiohttp's form."""
    return (request.body or None) if request.rest is None else _pieces(request)


async def _pieces(request: Forwarded) -> AsyncGenerator[bytes]:
    yield request.body
    async for piece in following(request.rest):
        yield piece


def _text(raw: bytes) -> str:
    """Return a name or a value as aiohttp writes it back to the same bytes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")

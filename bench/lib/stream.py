"""A client with little overhead: plain sockets, HTTP/1.1, server-sent events.

The load generator often shares its processors with the server. A general HTTP client spends as
much on one event as the server does; this one notes when bytes arrive and reads them when the
answer is over. It is for measuring alone: programs use `overtone_client`.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from overtone_client import ConnectionFailed, ConnectionLost, InvalidArgument

_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Exchange:
    """One answer: when each piece of it arrived (`time.perf_counter`), and the pieces.

    Args:
        sent_s: when the request was handed to the system.
        status: of HTTP.
        headers: with names in lower case.
        pieces: of the body, as they came off the wire.
    """

    sent_s: float
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def is_chunked(self) -> bool:
        """Return whether the body is framed in chunks."""
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    def body(self) -> bytes:
        """Return the whole body without its framing."""
        return b"".join(data for _, data in self._unframed())

    def events(self) -> list[tuple[float, bytes]]:
        """Return when each server-sent event was complete, and its data; comments are none."""
        found: list[tuple[float, bytes]] = []
        rest = b""
        for at, data in self._unframed():
            *whole, rest = (rest + data).split(b"\n\n")
            told = (event for event in whole if not event.startswith(b":"))
            found += [(at, event.removeprefix(b"data: ")) for event in told]
        return found

    def _unframed(self) -> list[tuple[float, bytes]]:
        if not self.is_chunked:
            return self.pieces
        chunks = _Chunks()
        return [(at, chunks.feed(data)) for at, data in self.pieces]


class _Chunks:
    """Takes the framing of a chunked body away, piece by piece."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # bytes of the chunk that are still to come, its line's end included

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        found = []
        while self._buffer:
            if self._left == 0:
                line, separator, rest = self._buffer.partition(b"\r\n")
                size = int(line.partition(b";")[0], 16) if separator else 0
                if size == 0:  # an unfinished line, or the last chunk
                    break
                self._buffer, self._left = rest, size + 2
            taken, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
            found.append(taken[: max(0, self._left - 2)])
            self._left -= len(taken)
        return b"".join(found)


class _Wire(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.transport: asyncio.Transport | None = None
        self.is_open = False
        self._answer: asyncio.Future[Exchange] | None = None
        self._exchange = Exchange(0.0)
        self._head = b""
        self._tail = b""
        self._left: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.is_open = transport, True

    async def ask(self, request: bytes) -> Exchange:
        """Send a request and return its whole answer. Raises ConnectionLost."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._exchange, self._head, self._tail, self._left = Exchange(0.0), b"", b"", None
        self._exchange.sent_s = time.perf_counter()
        self.transport.write(request)
        try:
            return await self._answer
        finally:
            if not self._answer.done() or self._answer.cancelled():
                self.close()

    def close(self) -> None:
        """End the connection at once."""
        self.is_open = False
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._exchange.status:
            data = self._read_head(data)
        if data:
            self._exchange.pieces.append((now, data))
            self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
            if self._left is not None:
                self._left -= len(data)
        if self._exchange.status and self._is_over():
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._answer is None or self._answer.done():
            return
        if self._exchange.status and self._left is None and not self._exchange.is_chunked:
            self._finish()  # the body ends with the connection
        else:
            detail = str(error or "closed by the server")
            text = ConnectionLost.text.format(url=self._url, detail=detail)
            self._answer.set_exception(ConnectionLost(text))

    def _read_head(self, data: bytes) -> bytes:
        """Read status and headers; return what came after them."""
        self._head += data
        head, separator, rest = self._head.partition(_END_OF_HEAD)
        if not separator:
            return b""
        first, *lines = head.decode("latin-1").split("\r\n")
        self._exchange.status = int(first.split(" ", 2)[1])
        pairs = (line.partition(":") for line in lines)
        self._exchange.headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = self._exchange.headers.get("content-length")
        self._left = None if length is None else int(length)
        return rest

    def _is_over(self) -> bool:
        if self._exchange.is_chunked:
            return self._tail == _LAST_CHUNK
        return self._left is not None and self._left <= 0

    def _finish(self) -> None:
        if self._exchange.headers.get("connection", "").lower() == "close":
            self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._exchange)


class Wires:
    """Connections to one server, kept open and used again.

    Args:
        url: of the server; `https` is checked against the system's authorities.
        api_key: its key, if it wants one.

    Raises:
        InvalidArgument: the URL is not one of a server.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument(f"{url!r} is not a server's URL, like http://127.0.0.1:8000")
        self._url, self._host = url, parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._headers = f"Host: {parts.netloc}\r\nAccept: */*\r\n{key}"
        self._idle: list[_Wire] = []

    async def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Exchange:
        """Return the answer to one request, whatever its status.

        Raises:
            ConnectionFailed: nothing listens there.
            ConnectionLost: the connection broke before the answer was complete.
        """
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        kind = "Content-Type: application/json\r\n" if body is not None else ""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}{kind}"
        request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode("latin-1") + data
        wire = await self._wire()
        exchange = await wire.ask(request)
        if wire.is_open:
            self._idle.append(wire)
        return exchange

    async def _wire(self) -> _Wire:
        while self._idle:
            wire = self._idle.pop()
            if wire.is_open:
                return wire
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(
                lambda: _Wire(self._url), self._host, self._port, ssl=self._tls
            )
        except OSError as error:
            detail = error.strerror or str(error)
            raise ConnectionFailed(
                ConnectionFailed.text.format(url=self._url, detail=detail)
            ) from (error)
        return made

    def close(self) -> None:
        """End the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

"""One HTTP/1.1 connection: uvicorn's, but no client's default breaks it and no slow peer keeps it.

- A request that offers another protocol (`Upgrade: h2c`, as curl --http2 and Java's client send it
  with their first request) is answered as HTTP/1.1. httptools drops its body.
- A request's head is complete within the bound of `pace.py`, or it is answered with 408; its body
  is bounded in `middleware/body_limit.py`, where the server's own slowness does not count.
- An answer that is not read is cut after the same bound.
- A request that lost its connection says so in its scope: `state["is_gone"]`.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from server.api.pace import Pace
from server.errors import HeadTooLarge, InvalidRequest, RequestTimeout, body_of, status_of
from server.process.unread import UnreadAnswer

#: Of a head, or of what stands between a body's chunks.
MAX_HEAD_BYTES = 1 << 16
#: A chunk of one byte is six bytes long.
_MOST_FRAMING = 8
_OFFERS = (b"upgrade", b"http2-settings")


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with these bounds.

    Args:
        args, kwargs: uvicorn's own.
        stall_s: seconds that a caller may pause.
        on_refused: called with the status of an answer to what never became a request.
    """

    def __init__(
        self,
        *args: Any,
        stall_s: float,
        on_refused: Callable[[int], None] = lambda status: None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._on_refused = on_refused
        self.parser = _Parser(self)
        self._stall_s = stall_s
        self._is_incoming = False  # a request has begun to come, and is not complete
        self._is_head = True  # what comes is its head
        self._pace: Pace | None = None  # of a request that comes in several pieces
        self._since = 0.0  # when bytes came last, or the server last held them up
        self._num_body_bytes = 0
        self._check: asyncio.TimerHandle | None = None
        self._unread: UnreadAnswer | None = None
        self._cycles: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unread = UnreadAnswer(transport, self.loop, self._stall_s)
        # A connection on which nothing comes at all is an idle one.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        if self._check is not None:
            self._check.cancel()
        if self._unread is not None:
            self._unread.end()
        for cycle in self._open_cycles():  # uvicorn itself tells the last of several requests only
            cycle.scope["state"]["is_gone"] = True
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_incoming:
            self._count(len(data))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_incoming = self._is_head = True
        self._pace = None
        self._num_body_bytes = 0

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("CONNECT is for proxies")
            return  # the parser reads the head again, without the offer
        super().on_headers_complete()
        self._is_head = False
        self._cycles = [*self._open_cycles(), self.cycle]
        self.headers = []  # what comes behind a chunked body is no part of the request's head

    def on_body(self, body: bytes) -> None:
        self._num_body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._is_incoming = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() and self._unread is not None:
            self._unread.begin()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        if self._unread is not None:
            self._unread.begin()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is not None:
            self._unread.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None and not self.transport.is_closing():
            self._unread.end()

    def send_400_response(self, msg: str) -> None:
        self.refuse(InvalidRequest("this is not a request of HTTP/1.1"))

    def refuse(self, error: Exception) -> None:
        """Close the connection, with an answer if one is due."""
        if self._owes_answer():
            self.transport.write(_answer_of(error))
            if self._is_head:
                self._on_refused(status_of(error))
            else:
                self.cycle.disconnected = True  # its own answer would be a second one
        self.transport.close()
        if self._unread is not None:
            self._unread.begin()

    def head_without_offer(self) -> bytes:
        """Return the head that was read last without what offers another protocol."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                value = b",".join(t for t in value.split(b",") if t.strip().lower() not in _OFFERS)
            if name not in _OFFERS and (value or name != b"connection"):
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def _owes_answer(self) -> bool:
        """Return whether the next answer is that of the request that is being received."""
        open_cycles = self._open_cycles()
        if self._is_head:
            return not open_cycles
        return open_cycles == [self.cycle] and not self.cycle.response_started

    def _open_cycles(self) -> list[RequestResponseCycle]:
        return [cycle for cycle in self._cycles if not cycle.response_complete]

    def _count(self, num_bytes: int) -> None:
        """Count bytes of a request that is not complete, and see to it that it is looked at."""
        now = self.loop.time()
        if self._pace is None:  # it began among these bytes
            self._pace = Pace(self._stall_s)
        else:
            self._pace.moved(num_bytes, now - self._since)
        self._since = now
        if self._pace.num_bytes > MAX_HEAD_BYTES + _MOST_FRAMING * self._num_body_bytes:
            self._is_incoming = False
            self.refuse(HeadTooLarge(f"a request's head has more than {MAX_HEAD_BYTES} bytes"))
        elif self._check is None:
            self._check = self.loop.call_later(self._pace.patience_s, self._look)

    def _look(self) -> None:
        """End the connection if its request comes too slowly."""
        self._check = None
        if not self._is_incoming or self._pace is None or self.transport.is_closing():
            return
        now = self.loop.time()
        if self.flow.read_paused or self._open_cycles():  # the server's turn, or body_limit.py's
            self._since = now
        left_s = self._pace.patience_s - (now - self._since)
        if left_s > 0:
            self._check = self.loop.call_later(left_s, self._look)
        else:
            self.refuse(RequestTimeout(self._pace.fault))


class _Parser(httptools.HttpRequestParser):
    """httptools' parser, for which a request that offers another protocol is one of HTTP/1.1.

    A server may ignore an offer (RFC 9110, 7.8). httptools takes what follows it for the other
    protocol, so the head is parsed a second time, without it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._begin()

    def _begin(self) -> None:
        super().__init__(self._connection)
        # As uvicorn's own: a request behind one with `Connection: close` is no fault of that one.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: Any) -> None:
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._feed_as_plain(memoryview(data), offer.args[0])

    def _feed_as_plain(self, data: memoryview, end: int) -> None:
        """Read the request whose head ends at `end` again, and what follows it."""
        while True:
            head = self._connection.head_without_offer()
            self._begin()  # behind an offer with `Connection: close` it would read nothing more
            super().feed_data(head)
            data = data[end:]
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                end = offer.args[0]
            else:
                return


def _answer_of(error: Exception) -> bytes:
    body = json.dumps(body_of(error)).encode()
    head: Sequence[bytes] = (
        STATUS_LINE[status_of(error)].rstrip(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
    )
    return b"\r\n".join([*head, b"", body])

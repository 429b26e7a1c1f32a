"""Answers in server-sent events, one way for all of them: completions, evaluations, jobs.

The headers go out at once, before the first event. While nothing is sent, a comment goes out every
`PING_S` seconds: proxies and clients that close silent connections keep this one. A caller that
hangs up, also before the first event, ends the work behind the events at once.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from server.api.request import error_body, event_line, gone

#: Silence after which a comment is sent; proxies close after 60 s and more.
PING_S = 15.0
_PING = b": ping\n\n"
_DONE = "data: [DONE]\n\n"
#: Caches keep nothing of it, and nginx passes each event on.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStream(Response):
    """Sends lines as they come.

    Args:
        lines: whole events; closed at the end, and when the caller hangs up.
        headers: beside those of every stream.
    """

    media_type = "text/event-stream"

    def __init__(self, lines: AsyncGenerator[str], headers: Mapping[str, str] = _HEADERS) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**_HEADERS, **headers})
        self._lines = lines
        self._spoken_at = 0.0  # on the event loop's clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the headers, then the lines until they or the connection are over."""
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        self._spoken_at = asyncio.get_running_loop().time()
        telling = asyncio.ensure_future(self._tell(send))
        watching = asyncio.ensure_future(self._watch(receive, send))
        try:
            await asyncio.wait({telling, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (telling, watching):
                task.cancel()
            await asyncio.gather(telling, watching, return_exceptions=True)
        if not telling.cancelled():
            telling.result()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(self._lines):
            async for line in self._lines:
                await send(_body(line.encode()))
                self._spoken_at = loop.time()

    async def _watch(self, receive: Receive, send: Send) -> None:
        """Return when the caller has hung up; meanwhile break every silence."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(self._spoken_at + PING_S):
                    return await gone(receive)
            except TimeoutError:
                if loop.time() >= self._spoken_at + PING_S:
                    await send(_body(_PING))
                    self._spoken_at = loop.time()


async def event_lines(
    request: Request, events: AsyncGenerator[Mapping[str, Any]]
) -> AsyncGenerator[str]:
    """Yield events as lines, then `[DONE]`; what makes them fail is the last event."""
    try:
        async with aclosing(events):
            async for event in events:
                yield event_line(event)
    except Exception as error:
        yield event_line(error_body(request, error))
    yield _DONE


async def named_lines(events: AsyncGenerator[Mapping[str, Any]]) -> AsyncGenerator[str]:
    """Yield events that have a `type` as lines, each under its type's name."""
    async with aclosing(events):
        async for event in events:
            yield f"event: {event['type']}\n{event_line(event)}"


def _body(content: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": True}

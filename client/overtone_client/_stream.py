"""Server-sent events into values: each `data:` is one chunk, `[DONE]` ends the stream."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import httpx2

from ._responses import api_error, checked, understood
from .errors import ConnectionLost

T = TypeVar("T")
DONE = "[DONE]"


class Decoder(Generic[T]):
    """Turns the events of one response into values. Reads nothing itself, so both clients use it.

    The response should be read to its end, also after `[DONE]`: only then can its connection be
    used again, and only then does the server know that all of it arrived.

    Args:
        response: the open response; where it is an error, its body must have been read.
        build: makes a value from an event's JSON.
    """

    def __init__(self, response: httpx2.Response, build: Callable[[Any], T]) -> None:
        self._response = checked(response)
        self._build = build
        self._is_done = False

    def values(self, event: httpx2.ServerSentEvent) -> list[T]:
        """What the event holds: one value, none from `[DONE]` on.

        Raises:
            APIError: the event is an error in mid stream.
            InvalidResponse: it is not of the expected shape.
        """
        self._is_done = self._is_done or event.data == DONE
        if self._is_done:
            return []
        return [understood(str(self._response.url), self._value, event.json)]

    def finish(self) -> None:
        """Check that the stream was whole. Raises ConnectionLost when `[DONE]` never came."""
        if not self._is_done:
            detail = f"the stream ended without {DONE}"
            raise ConnectionLost(ConnectionLost.text.format(url=self._response.url, detail=detail))

    def _value(self, body: Any) -> T:
        if body.get("error"):
            raise api_error(body, None, self._response.headers)
        return self._build(body)

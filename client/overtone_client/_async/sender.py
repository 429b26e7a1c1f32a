"""The way of every call to the server and back."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import httpx2

from .. import _pauses as pauses
from .. import _responses as responses
from .._connection import built, translated, within
from .._requests import Call, Walk
from .._retries import pause_before_retry
from .._stream import Decoder
from ..errors import APIError

_LOG = logging.getLogger("overtone_client")

T = TypeVar("T")


class AsyncSender:
    """Sends calls over one pool of connections, and again where the server is busy.

    Args:
        http: the pool.
        max_retries: of one call; which calls, and when: `_retries`.
    """

    def __init__(self, http: httpx2.AsyncClient, max_retries: int) -> None:
        self._http, self._max_retries = http, max_retries

    async def send(
        self, call: Call, *, max_retries: int | None = None, within_s: float | None = None
    ) -> httpx2.Response:
        """The whole answer, if it is a success.

        Args:
            call: what is sent.
            max_retries: instead of the client's own.
            within_s: seconds that are left for it: it is sent once, and given up after these.
        """
        if within_s is not None:
            call, max_retries = within(call, self._http.timeout, within_s), 0
        return await self._answered(call, max_retries, is_streamed=False)

    async def stream(
        self,
        call: Call,
        build: Callable[[Any], T],
        on_open: Callable[[], None] | None = None,
    ) -> AsyncGenerator[T, None]:
        """A value of each event of the answer; a stream that has begun is never begun again.

        Args:
            call: what is sent.
            build: makes a value of an event's JSON.
            on_open: called when the server has answered, before the first event.
        """
        with translated(str(self._http.base_url)):
            answered = await self._answered(call, None, is_streamed=True)
            async with aclosing(answered) as response:
                if on_open:
                    on_open()
                decoder = Decoder(response, build)
                async for event in httpx2.EventSource(response):
                    for value in decoder.values(event):
                        yield value
                decoder.finish()

    async def walk(self, walk: Walk, build: Callable[[Any], T]) -> AsyncIterator[T]:
        """The entries of a list, fetched page by page."""
        left: Walk | None = walk
        while left:
            found, body = responses.parse_items(await self.send(left.call()), build)
            for one in found:
                yield one
            left = left.following(body)

    async def all(self, walk: Walk, build: Callable[[Any], T]) -> list[T]:
        """All entries of a list."""
        return [one async for one in self.walk(walk, build)]

    async def _answered(
        self, call: Call, max_retries: int | None, *, is_streamed: bool
    ) -> httpx2.Response:
        left = self._max_retries if max_retries is None else max_retries
        num_tried = 0
        while True:
            try:
                return await self._answered_once(call, is_streamed)
            except APIError as error:
                seconds = pause_before_retry(call, error, num_tried)
                if seconds is None or num_tried >= left:
                    raise
                _LOG.info("%s; asking again in %.1f s", error.message, seconds)
            num_tried += 1
            await pauses.async_pause(seconds)

    async def _answered_once(self, call: Call, is_streamed: bool) -> httpx2.Response:
        with translated(str(self._http.base_url)):
            request = built(self._http, call)
            response = await self._http.send(request, stream=is_streamed)
            if is_streamed and not response.is_success:
                async with aclosing(response):
                    await response.aread()
            return responses.checked(response)

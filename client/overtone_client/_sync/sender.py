# Made of _async/sender.py by `./run reference`: change that file.
"""The way of every call to the server and back."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
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


class Sender:
    """Sends calls over one pool of connections, and again where the server is busy.

    Args:
        http: the pool.
        max_retries: of one call; which calls, and when: `_retries`.
    """

    def __init__(self, http: httpx2.Client, max_retries: int) -> None:
        self._http, self._max_retries = http, max_retries

    def send(
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
        return self._answered(call, max_retries, is_streamed=False)

    def stream(
        self,
        call: Call,
        build: Callable[[Any], T],
        on_open: Callable[[], None] | None = None,
    ) -> Generator[T, None, None]:
        """A value of each event of the answer; a stream that has begun is never begun again.

        Args:
            call: what is sent.
            build: makes a value of an event's JSON.
            on_open: called when the server has answered, before the first event.
        """
        with translated(str(self._http.base_url)):
            answered = self._answered(call, None, is_streamed=True)
            with closing(answered) as response:
                if on_open:
                    on_open()
                decoder = Decoder(response, build)
                for event in httpx2.EventSource(response):
                    yield from decoder.values(event)
                decoder.finish()

    def walk(self, walk: Walk, build: Callable[[Any], T]) -> Iterator[T]:
        """The entries of a list, fetched page by page."""
        left: Walk | None = walk
        while left:
            found, body = responses.parse_items(self.send(left.call()), build)
            yield from found
            left = left.following(body)

    def all(self, walk: Walk, build: Callable[[Any], T]) -> list[T]:
        """All entries of a list."""
        return list(self.walk(walk, build))

    def _answered(
        self, call: Call, max_retries: int | None, *, is_streamed: bool
    ) -> httpx2.Response:
        left = self._max_retries if max_retries is None else max_retries
        num_tried = 0
        while True:
            try:
                return self._answered_once(call, is_streamed)
            except APIError as error:
                seconds = pause_before_retry(call, error, num_tried)
                if seconds is None or num_tried >= left:
                    raise
                _LOG.info("%s; asking again in %.1f s", error.message, seconds)
            num_tried += 1
            pauses.pause(seconds)

    def _answered_once(self, call: Call, is_streamed: bool) -> httpx2.Response:
        with translated(str(self._http.base_url)):
            request = built(self._http, call)
            response = self._http.send(request, stream=is_streamed)
            if is_streamed and not response.is_success:
                with closing(response):
                    response.read()
            return responses.checked(response)

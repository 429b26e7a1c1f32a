"""Batches of requests over REST, for asyncio programs; batches.py has the methods described."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import httpx2

from . import _batch_calls as calls
from . import _training_requests as requests
from . import _training_responses as responses
from ._requests import Call, Walk, walk
from ._responses import parse_items
from ._upload import Progress, Source
from .batch_types import Batch, BatchResult
from .training_types import TrainingFile


class AsyncBatches:
    """The same as `Batches`, method for method.

    Args:
        send: sends a call and returns the whole answer.
    """

    def __init__(self, send: Callable[[Call], Awaitable[httpx2.Response]]) -> None:
        self._send = send

    async def upload(self, source: Source, *, on_progress: Progress | None = None) -> TrainingFile:
        with requests.opened(source, on_progress, calls.PURPOSE) as call:
            return responses.parse(await self._send(call), responses.to_file)

    async def create(
        self, input_file: str, endpoint: str, *, metadata: Mapping[str, str] | None = None
    ) -> Batch:
        return calls.parse(await self._send(calls.create(input_file, endpoint, metadata)))

    async def list(self, *, limit: int | None = None) -> AsyncIterator[Batch]:
        left: Walk | None = walk(calls.BATCHES, limit)
        while left:
            found, body = parse_items(await self._send(left.call()), calls.to_batch)
            for one in found:
                yield one
            left = left.following(body)

    async def get(self, id: str) -> Batch:
        return calls.parse(await self._send(Call("GET", calls.path(id))))

    async def cancel(self, id: str) -> Batch:
        return calls.parse(await self._send(Call("POST", calls.path(id, "cancel"))))

    async def results(self, batch: Batch) -> AsyncIterator[BatchResult]:
        for file in (batch.output_file, batch.error_file):
            if file is not None:
                path = requests.file_path(file, "content")
                for one in calls.results(await self._send(Call("GET", path))):
                    yield one

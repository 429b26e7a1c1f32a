"""Batches of requests over REST."""

from collections.abc import AsyncIterator, Mapping

from .. import _batch_calls as calls
from .. import _training_requests as requests
from .. import _training_responses as responses
from .._requests import Call, walk
from .._upload import Progress, Source
from ..batch_types import Batch, BatchResult
from ..training_types import TrainingFile
from .sender import AsyncSender


class AsyncBatches:
    """Many requests at once, over uploaded files; every method raises `OvertoneError`s only."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    async def upload(self, source: Source, *, on_progress: Progress | None = None) -> TrainingFile:
        """Upload a JSONL file of requests; look at `faults` of what comes back.

        Args:
            source: the file.
            on_progress: called with the bytes sent and the bytes in all.
        """
        with requests.opened(source, on_progress, calls.PURPOSE) as call:
            return responses.parse(await self._sender.send(call), responses.to_file)

    async def create(
        self, input_file: str, endpoint: str, *, metadata: Mapping[str, str] | None = None
    ) -> Batch:
        """Run the requests of an uploaded file, in the room that other requests leave.

        Args:
            input_file: its id.
            endpoint: that all its lines name, such as `/v1/completions`.
            metadata: kept with the batch.
        """
        call = calls.create(input_file, endpoint, metadata)
        return calls.parse(await self._sender.send(call))

    def list(self, *, limit: int | None = None) -> AsyncIterator[Batch]:
        """The batches, the newest first, fetched page by page."""
        return self._sender.walk(walk(calls.BATCHES, limit), calls.to_batch)

    async def get(self, id: str) -> Batch:
        """One batch as it stands."""
        return calls.parse(await self._sender.send(Call("GET", calls.path(id))))

    async def cancel(self, id: str) -> Batch:
        """Stop a batch; what is answered by then is in its files when it is `cancelled`."""
        return calls.parse(await self._sender.send(Call("POST", calls.path(id, "cancel"))))

    async def results(self, batch: Batch) -> AsyncIterator[BatchResult]:
        """The answers to a batch that is over, then its failed requests; a file at a time."""
        for file in (batch.output_file, batch.error_file):
            if file is not None:
                path = requests.file_path(file, "content")
                for one in calls.results(await self._sender.send(Call("GET", path))):
                    yield one

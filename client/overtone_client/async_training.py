"""Training over REST, for asyncio programs; training.py has the methods described."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import httpx2

from . import _training_requests as requests
from . import _training_responses as responses
from ._requests import Call, Walk, walk
from ._responses import parse_items
from ._upload import Progress, Source
from .training_types import (
    CurvePoint,
    Evaluation,
    Job,
    JobCheckpoint,
    JobEvent,
    TrainingFile,
    Worker,
)

T = TypeVar("T")


class AsyncStreamer(Protocol):
    """Sends a call and builds a value from each event of its answer."""

    def __call__(
        self, call: Call, build: Callable[[Any], T]
    ) -> AsyncGenerator[T, None]: ...  # pragma: no cover


class AsyncTraining:
    """The same as `Training`, method for method.

    Args:
        send: sends a call and returns the whole answer.
        stream: sends a call that is answered in events.
    """

    def __init__(
        self, send: Callable[[Call], Awaitable[httpx2.Response]], stream: AsyncStreamer
    ) -> None:
        self._send, self._stream = send, stream

    async def upload(self, source: Source, *, on_progress: Progress | None = None) -> TrainingFile:
        with requests.opened(source, on_progress) as call:
            return responses.parse(await self._send(call), responses.to_file)

    def files(self, *, limit: int | None = None) -> AsyncIterator[TrainingFile]:
        return self._walk(walk(requests.FILES, limit), responses.to_file)

    async def file(self, id: str) -> TrainingFile:
        return responses.parse(await self._get(requests.file_path(id)), responses.to_file)

    async def file_content(self, id: str) -> bytes:
        return (await self._get(requests.file_path(id, "content"))).content

    async def delete_file(self, id: str) -> None:
        await self._send(Call("DELETE", requests.file_path(id)))

    async def create(  # noqa: PLR0913 (the fields of the request)
        self,
        model: str,
        training_file: str,
        *,
        name: str | None = None,
        method: str | None = None,
        config: Mapping[str, Any] | None = None,
        task: str | None = None,
        validation_file: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        seed: int | None = None,
        alias: str | None = None,
        publish_if: Mapping[str, str] | None = None,
        move_latest: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Job:
        adapter = {"name": name, "method": method, "config": config, "task": task}
        adapter |= {"alias": alias, "publish_if": publish_if, "move_latest": move_latest}
        call = requests.create(
            model,
            training_file,
            adapter,
            validation_file=validation_file,
            hyperparameters=hyperparameters,
            seed=seed,
            metadata=metadata,
        )
        return responses.parse(await self._send(call), responses.to_job)

    def jobs(self, *, limit: int | None = None) -> AsyncIterator[Job]:
        return self._walk(walk(requests.JOBS, limit), responses.to_job)

    async def job(self, id: str) -> Job:
        return responses.parse(await self._get(requests.job_path(id)), responses.to_job)

    async def cancel(self, id: str) -> Job:
        return await self._post(id, "cancel")

    async def pause(self, id: str) -> Job:
        return await self._post(id, "pause")

    async def resume(self, id: str) -> Job:
        return await self._post(id, "resume")

    def events(self, id: str, *, limit: int | None = None) -> AsyncIterator[JobEvent]:
        return self._walk(walk(requests.job_path(id, "events"), limit), responses.to_event)

    def stream(
        self, id: str, *, after: str | None = None, after_step: int | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        return self._stream(requests.streamed(id, after, after_step), responses.to_event)

    def evaluate(
        self, model: str, file: str, *, max_length: int | None = None
    ) -> AsyncGenerator[Evaluation, None]:
        return self._stream(requests.evaluation(model, file, max_length), responses.to_evaluation)

    def checkpoints(self, id: str, *, limit: int | None = None) -> AsyncIterator[JobCheckpoint]:
        path = requests.job_path(id, "checkpoints")
        return self._walk(walk(path, limit), responses.to_checkpoint)

    def curve(self, id: str) -> AsyncIterator[CurvePoint]:
        path = requests.job_path(id, "metrics")
        return self._walk(walk(path, None), responses.to_point)

    async def plot(self, id: str) -> bytes:
        return (await self._get(requests.job_path(id, "plot.png"))).content

    async def workers(self) -> list[Worker]:
        return responses.parse(await self._get(requests.WORKERS), responses.to_workers)

    async def _get(self, path: str) -> httpx2.Response:
        return await self._send(Call("GET", path))

    async def _post(self, id_: str, move: str) -> Job:
        answer = await self._send(Call("POST", requests.job_path(id_, move)))
        return responses.parse(answer, responses.to_job)

    async def _walk(self, walk: Walk, build: Callable[[Any], T]) -> AsyncIterator[T]:
        left: Walk | None = walk
        while left:
            found, body = parse_items(await self._send(left.call()), build)
            for one in found:
                yield one
            left = left.following(body)

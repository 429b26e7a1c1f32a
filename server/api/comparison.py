"""One request to several models, answered side by side in one batch.

What is told of a model is what its own request would get: a completion, a stream's events, or an
error's body. A model that fails fails alone.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from random import SystemRandom

from server.api.answerer import resolve
from server.api.answering import Accepted, streamed_of, whole_of
from server.api.callers import Caller
from server.api.calls import chat_call, completion_call
from server.api.compare_schemas import CompareChats, CompareRequest
from server.api.completion_responses import Json
from server.api.generation import GenerationCall
from server.api.sampling_schemas import MAX_CHOICES
from server.errors import InvalidRequest
from server.service import Service

#: Makes the body of an error.
ErrorBody = Callable[[Exception], Json]
_Told = tuple[int, Json | None]


def compare_calls(service: Service, body: CompareRequest, caller: Caller) -> list[GenerationCall]:
    """Return a call for each model, with the same prompts and seed; runs beside the event loop.

    Raises:
        Exception: as `completion_call` and `chat_call` do, for any of the models.
    """
    if body.seed is None:
        body = body.model_copy(update={"seed": SystemRandom().getrandbits(63)})
    answerers = [resolve(service, model, caller.space) for model in body.models]
    if isinstance(body, CompareChats):
        call = chat_call(service, body, caller, answerers[0])
    else:
        call = completion_call(service, body, caller, answerers[0])
    rows = len(call.prompts) * len(answerers)
    if rows > MAX_CHOICES:
        raise InvalidRequest(f"{rows} choices of all models together; at most {MAX_CHOICES}", "n")
    return [replace(call, answerer=answerer) for answerer in answerers]


async def whole_comparison(
    service: Service, accepted: Sequence[Accepted], error_body: ErrorBody
) -> Json:
    """Return all answers once the last one is finished; cancelling it cancels them all."""

    async def one(part: Accepted) -> Json:
        try:
            return (await whole_of(service, part)).body
        except Exception as error:
            return error_body(error)

    answers = await asyncio.gather(*map(one, accepted))
    return {
        "id": f"cmpr-{uuid.uuid4().hex}",
        "object": "comparison",
        "created": int(time.time()),
        "data": [_entry(accepted, i, "answer", answer) for i, answer in enumerate(answers)],
    }


async def comparison_events(
    service: Service, accepted: Sequence[Accepted], error_body: ErrorBody
) -> AsyncGenerator[Json]:
    """Yield the events of all answers as they come, each with its model; closing it cancels all."""

    async def one(part: Accepted) -> AsyncIterator[Json]:
        try:
            async with aclosing((await streamed_of(service, part)).events) as events:
                async for event in events:
                    yield event
        except Exception as error:
            yield error_body(error)

    async with aclosing(_merged([one(part) for part in accepted])) as events:
        async for number, event in events:
            yield _entry(accepted, number, "chunk", event)


def _entry(accepted: Sequence[Accepted], number: int, kind: str, told: Json) -> Json:
    return {"index": number, "model": accepted[number].call.answerer.model, kind: told}


async def _merged(streams: Sequence[AsyncIterator[Json]]) -> AsyncGenerator[tuple[int, Json]]:
    """Yield what the streams yield, as it comes, each with its stream's number."""
    queue: asyncio.Queue[_Told] = asyncio.Queue()

    async def pump(number: int, stream: AsyncIterator[Json]) -> None:
        async for event in stream:
            queue.put_nowait((number, event))
        queue.put_nowait((number, None))

    pumps = [asyncio.ensure_future(pump(*numbered)) for numbered in enumerate(streams)]
    try:
        left = len(pumps)
        while left:
            number, event = await queue.get()
            if event is None:
                left -= 1
            else:
                yield number, event
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

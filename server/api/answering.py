"""From a call (calls.py) to its answer: whole, or event by event. Needs no HTTP request.

Both ways look a version that was deleted before it was loaded up by its name again.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from registry import BlobMissing
from server.api.answerer import Answerer, resolve
from server.api.chat_schemas import ChatRequest
from server.api.completion_responses import Answer, Json, usage
from server.api.generation import Delta, GenerationCall, Run, finish
from server.api.prompt_scores import prompt_logprobs
from server.api.sampling import samplings
from server.service import Service

T = TypeVar("T")


@dataclass(frozen=True)
class WholeAnswer:
    """A finished answer: what gave it, and its body in OpenAI's shape."""

    answerer: Answerer
    body: Json


@dataclass(frozen=True)
class StreamedAnswer:
    """An answer as it comes: what gives it, and the events' bodies in OpenAI's shape.

    Closing `events` early cancels what is not over; they raise what made a sequence fail.
    """

    answerer: Answerer
    events: AsyncGenerator[Json]


async def whole_answer(service: Service, call: GenerationCall) -> WholeAnswer:
    """Return a call's answer once all choices are finished; cancelling it cancels them.

    Raises:
        Overloaded, Draining: nothing was accepted.
        PromptTooLong, InvalidRequest: as `samplings` does.
        Exception: what made a sequence fail.
    """
    return await _by_name(service, call, lambda now: _whole(service, now))


async def streamed_answer(service: Service, call: GenerationCall) -> StreamedAnswer:
    """Return a call's answer as events; an error before the first token is raised here.

    Raises:
        Exception: as `whole_answer` does.
    """
    return await _by_name(service, call, lambda now: _streamed(service, now))


async def _by_name(
    service: Service, call: GenerationCall, attempt: Callable[[GenerationCall], Awaitable[T]]
) -> T:
    try:
        return await attempt(call)
    except BlobMissing:
        if call.answerer.record is not None:
            service.registry.directory.forget(call.answerer.record.name)
        now = await asyncio.to_thread(resolve, service, call.body.model)
        if now.digest == call.answerer.digest:
            raise
        return await attempt(replace(call, answerer=now))


async def _whole(service: Service, call: GenerationCall) -> WholeAnswer:
    run, form = _accepted(service, call)
    choices = await finish(run)
    count = call.body.prompt_logprobs
    if count is not None:
        for choice, sequence in zip(choices, run.sequences, strict=True):
            scores = await asyncio.to_thread(prompt_logprobs, service.text, sequence, count)
            choice.extras["prompt_logprobs"] = scores
    generated = sum(choice.num_generated for choice in choices)
    totals = usage(call.prompts, call.body.n, generated, run.num_cached(call.body.n))
    return WholeAnswer(call.answerer, form.whole(choices, totals, run.mode))


async def _streamed(service: Service, call: GenerationCall) -> StreamedAnswer:
    run, form = _accepted(service, call)
    deltas = run.deltas()
    first = await anext(deltas)
    return StreamedAnswer(call.answerer, _events(call, run, form, first, deltas))


def _accepted(service: Service, call: GenerationCall) -> tuple[Run, Answer]:
    """Return the accepted sequences of a call, and the shape of its answer."""
    run = Run(service, call)
    run.submit(samplings(call, service))
    if call.answerer.record is not None:
        service.metrics.on_adapter(call.answerer.record.name)
    form = Answer(
        call.answerer,
        service.text,
        isinstance(call.body, ChatRequest),
        call.num_logprobs is not None,
        call.body.return_token_ids,
    )
    return run, form


async def _events(
    call: GenerationCall, run: Run, form: Answer, first: Delta, rest: AsyncIterator[Delta]
) -> AsyncGenerator[Json]:
    body = call.body
    seen: set[int] = set()
    generated = 0
    try:
        async for delta in _chain(first, rest):
            generated += delta.num_generated
            piece = form.piece(delta, run.mode, delta.choice not in seen)
            seen.add(delta.choice)
            if run.is_over:
                cached = run.num_cached(body.n)
                piece["usage"] = usage(call.prompts, body.n, generated, cached)
            yield piece
        if body.stream_options and body.stream_options.include_usage:
            totals = usage(call.prompts, body.n, generated, run.num_cached(body.n))
            yield form.closing(totals, run.mode)
    finally:
        run.close()


async def _chain(first: Delta, rest: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
    yield first
    async for delta in rest:
        yield delta

"""From a call (calls.py) to its answer: whole, or event by event. Needs no HTTP request.

A version that was deleted before it was loaded is looked up by its name again.
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

#: A stream waits so long for its first token before its headers go out: what fails until then is
#: still an HTTP status. The longer time is for adapters that are being loaded: their files may
#: turn out to be unusable.
READY_HOLD_S, LOADING_HOLD_S = 0.1, 1.0


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
    """Return a call's answer as events, with the first token or soon (`READY_HOLD_S`) without it.

    Raises:
        Exception: as `whole_answer` does; what goes wrong later is raised by the events.
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
        now = await asyncio.to_thread(resolve, service, call.answerer.model)
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
    first = asyncio.ensure_future(anext(deltas))
    try:
        await asyncio.wait({first}, timeout=READY_HOLD_S if run.is_loaded else LOADING_HOLD_S)
        if first.done():
            first.result()
    except BaseException:
        first.cancel()
        raise
    return StreamedAnswer(call.answerer, _events(call, run, form, first, deltas))


def _accepted(service: Service, call: GenerationCall) -> tuple[Run, Answer]:
    """Return the accepted sequences of a call, and the shape of its answer."""
    run = Run(service, call)
    run.submit(samplings(call, service))
    if call.answerer.record is not None:
        service.metrics.on_adapter(call.answerer.record.name)
    options = call.body.stream_options
    form = Answer(
        call.answerer,
        service.text,
        is_chat=isinstance(call.body, ChatRequest),
        with_logprobs=call.num_logprobs is not None,
        with_ids=call.body.return_token_ids,
        with_usage=options is not None and options.include_usage,
    )
    return run, form


async def _events(
    call: GenerationCall,
    run: Run,
    form: Answer,
    first: Awaitable[Delta],
    rest: AsyncIterator[Delta],
) -> AsyncGenerator[Json]:
    seen: set[int] = set()
    generated = 0
    try:
        async for delta in _chain(first, rest):
            generated += delta.num_generated
            yield form.piece(delta, run.mode, delta.choice not in seen)
            seen.add(delta.choice)
        if form.with_usage:
            totals = usage(call.prompts, call.body.n, generated, run.num_cached(call.body.n))
            yield form.closing(totals, run.mode)
    finally:
        run.close()


async def _chain(first: Awaitable[Delta], rest: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
    yield await first
    async for delta in rest:
        yield delta

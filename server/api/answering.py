"""From a call (calls.py) to its answer: whole, or event by event. Needs no HTTP request.

A version that was deleted before it was loaded is looked up by its name again.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from registry import BlobMissing
from server.api.answerer import Answerer, resolve
from server.api.call_trace import call_trace
from server.api.chat_schemas import ChatRequest
from server.api.completion_responses import Answer, Json, usage
from server.api.generation import Choice, GenerationCall, Run, finish, submit
from server.api.json_answer import beside
from server.api.prompt_scores import prompt_logprobs
from server.api.sampling import samplings
from server.generation.detokenizer import Text
from server.scheduling.sequence import Constraint
from server.service import Service
from server.telemetry.traces import RequestTrace, current

T = TypeVar("T")

#: A stream waits so long for its first event before its headers go out: what fails until then is
#: still an HTTP status. The longer time is for adapters that are being loaded: their files may
#: turn out to be unusable.
READY_HOLD_S, LOADING_HOLD_S = 0.1, 1.0


@dataclass(frozen=True)
class Accepted:
    """A call whose sequences are accepted, and the shape of its answer."""

    call: GenerationCall
    run: Run
    form: Answer

    def body(self, choices: Sequence[Choice]) -> Json:
        """Return the whole answer's body from its finished choices."""
        generated = sum(choice.num_generated for choice in choices)
        return self.form.whole(choices, self._usage(generated), self.run.mode)

    def num_values(self, choices: Sequence[Choice]) -> int:
        """Return about how many values the whole answer's body has."""
        alternatives = self.call.num_logprobs
        of_token = 1 if alternatives is None else 4 * (1 + alternatives)
        return of_token * sum(len(choice.sampled) for choice in choices)

    async def events(self) -> AsyncGenerator[Json]:
        """Yield the bodies of the answer's events; closing them cancels what is not over."""
        run, form = self.run, self.form
        seen: set[int] = set()
        generated = 0
        async with aclosing(run.deltas()) as deltas:
            async for delta in deltas:
                generated += delta.num_generated
                for piece in form.pieces(delta, run.mode, delta.choice not in seen):
                    yield piece
                    seen.add(delta.choice)
        if form.with_usage:
            yield form.closing(self._usage(generated), run.mode)

    def _usage(self, generated: int) -> Json:
        n = self.call.body.n
        return usage(self.call.prompts, n, generated, self.run.num_cached(n))


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


async def accept(service: Service, call: GenerationCall) -> Accepted:
    """Accept the sequences of a call, once its constraint is compiled.

    Raises:
        RateLimited, Overloaded, Draining: nothing was accepted.
        PromptTooLong, InvalidRequest: as `samplings` does; the constraint is malformed.
        UnsupportedParameter: the constraint has what is not supported.
    """
    (accepted,) = await accept_all(service, [call])
    return accepted


async def accept_all(service: Service, calls: Sequence[GenerationCall]) -> list[Accepted]:
    """Accept the sequences of all calls, to go side by side in one batch, or none of them.

    Raises:
        Exception: as `accept` does.
    """
    await _count_prompts(service, calls)
    constraints = [await _compiled(service, call) for call in calls]
    chosen = [samplings(call, service) for call in calls]
    runs = [Run(service, *each) for each in zip(calls, chosen, constraints, strict=True)]
    submit(service, runs)
    _trace(service, calls, runs)
    for call in calls:
        if call.answerer.record is not None:
            service.metrics.on_adapter(call.answerer.record.name)
    forms = [_form(service, call) for call in calls]
    return list(map(Accepted, calls, runs, forms))


def _trace(service: Service, calls: Sequence[GenerationCall], runs: Sequence[Run]) -> None:
    """Have each run add its spans to the request's trace once it is over, if there is one."""
    trace = current.get()
    if trace is None:
        return
    text = service.text if trace.traces.with_prompts else None
    for call, run in zip(calls, runs, strict=True):
        run.on_over = partial(_add, trace, call, run, text)


def _add(trace: RequestTrace, call: GenerationCall, run: Run, text: Text | None) -> None:
    trace.add(call_trace(call, run, text))


async def _count_prompts(service: Service, calls: Sequence[GenerationCall]) -> None:
    """Count the prompts' tokens among their tenant's; a prompt once, however many choices it has.

    Batches are not counted: they run in the room that others leave.
    """
    counted = [call for call in calls if not call.is_background]
    if counted:
        tokens = sum(call.num_prompt_tokens for call in counted)
        await service.meter.take_tokens(counted[0].tenant, tokens)


async def _compiled(service: Service, call: GenerationCall) -> Constraint | None:
    spec = call.constraint
    return None if spec is None else await service.constraints.compiled(spec)


async def whole_answer(service: Service, call: GenerationCall) -> WholeAnswer:
    """Return a call's answer once all choices are finished; cancelling it cancels them.

    Raises:
        Exception: as `accept` does, and what made a sequence fail.
    """
    return await whole_of(service, await accept(service, call))


async def whole_of(service: Service, accepted: Accepted) -> WholeAnswer:
    """Return the answer of what is accepted, as `whole_answer` does."""
    return await _by_name(service, accepted, partial(_whole, service))


async def streamed_answer(service: Service, call: GenerationCall) -> StreamedAnswer:
    """Return a call's answer as events, with the first one or soon (`READY_HOLD_S`) without it.

    Raises:
        Exception: as `whole_answer` does; what goes wrong later is raised by the events.
    """
    return await streamed_of(service, await accept(service, call))


async def streamed_of(service: Service, accepted: Accepted) -> StreamedAnswer:
    """Return the events of what is accepted, as `streamed_answer` does."""
    return await _by_name(service, accepted, _streamed)


async def _by_name(
    service: Service, accepted: Accepted, attempt: Callable[[Accepted], Awaitable[T]]
) -> T:
    try:
        return await attempt(accepted)
    except BlobMissing:
        was = accepted.call.answerer
        if was.record is not None:
            service.registry.directory.forget(was.record.name)
        now = await asyncio.to_thread(resolve, service, was.model, was.space)
        if now.digest == was.digest:
            raise
        return await attempt(await accept(service, replace(accepted.call, answerer=now)))


async def _whole(service: Service, accepted: Accepted) -> WholeAnswer:
    call = accepted.call
    choices = await finish(accepted.run)
    count = call.body.prompt_logprobs
    if count is not None:
        for choice, sequence in zip(choices, accepted.run.sequences, strict=True):
            scores = await asyncio.to_thread(prompt_logprobs, service.text, sequence, count)
            choice.extras["prompt_logprobs"] = scores
    body = await beside(accepted.num_values(choices), partial(accepted.body, choices))
    return WholeAnswer(call.answerer, body)


async def _streamed(accepted: Accepted) -> StreamedAnswer:
    events = accepted.events()
    first = asyncio.ensure_future(anext(events))
    hold_s = READY_HOLD_S if accepted.run.is_loaded else LOADING_HOLD_S
    try:
        await asyncio.wait({first}, timeout=hold_s)
        if first.done():
            first.result()
    except BaseException:
        first.cancel()
        raise
    return StreamedAnswer(accepted.call.answerer, _chain(first, events))


async def _chain(first: Awaitable[Json], rest: AsyncGenerator[Json]) -> AsyncGenerator[Json]:
    async with aclosing(rest):
        yield await first
        async for event in rest:
            yield event


def _form(service: Service, call: GenerationCall) -> Answer:
    options = call.body.stream_options
    return Answer(
        call.answerer,
        service.text,
        is_chat=isinstance(call.body, ChatRequest),
        with_logprobs=call.num_logprobs is not None,
        with_ids=call.body.return_token_ids,
        with_usage=options is not None and options.include_usage,
    )

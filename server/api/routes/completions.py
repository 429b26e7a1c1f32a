"""POST /v1/completions and /v1/chat/completions, whole or as server-sent events."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from registry import BlobMissing
from server.api.answerer import Answerer, resolve
from server.api.bodies.answers import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CompletionChunk,
)
from server.api.completion_responses import Answer, usage
from server.api.completion_schemas import ChatRequest, CompletionRequest, GenerationRequest
from server.api.describe import ANSWERS, answer, describe
from server.api.generation import Delta, GenerationCall, Run, finish, samplings
from server.api.request import event_line, json_body, log_unexpected, service_of, unless_gone
from server.errors import InvalidRequest, body_of

router = APIRouter(tags=["inference"])

_NAMED = ("X-Overtone-Adapter",)

_DEFAULT_MAX_TOKENS = 16


@router.post(
    "/v1/completions",
    **describe(
        "createCompletion",
        answer(Completion, events=CompletionChunk, headers=_NAMED),
        body=CompletionRequest,
        errors=ANSWERS,
    ),
)
async def completions(request: Request) -> Response:
    """Complete one prompt or many."""
    body = await json_body(request, CompletionRequest)
    service = service_of(request)
    answerer = await asyncio.to_thread(resolve, service, body.model)
    # Beside the event loop: a prompt may be megabytes.
    tokens = await asyncio.to_thread(lambda: [service.text.prompt(p) for p in body.prompts])
    prompts = [prompt for prompt in tokens for _ in range(body.n)]
    max_tokens = body.max_tokens or _DEFAULT_MAX_TOKENS
    call = GenerationCall(body, prompts, max_tokens, body.logprobs)
    return await _answer_by_name(request, call, answerer)


@router.post(
    "/v1/chat/completions",
    **describe(
        "createChatCompletion",
        answer(ChatCompletion, events=ChatCompletionChunk, headers=_NAMED),
        body=ChatRequest,
        errors=ANSWERS,
    ),
)
async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    body = await json_body(request, ChatRequest)
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", "top_logprobs")
    service = service_of(request)
    answerer = await asyncio.to_thread(resolve, service, body.model)
    messages = [message.plain() for message in body.messages]
    prompt = await asyncio.to_thread(service.text.chat_prompt, messages)
    max_tokens = body.max_completion_tokens or body.max_tokens
    num_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    call = GenerationCall(body, [prompt] * body.n, max_tokens, num_logprobs)
    return await _answer_by_name(request, call, answerer)


async def _answer_by_name(request: Request, call: GenerationCall, answerer: Answerer) -> Response:
    """Answer; a version that was deleted before it was loaded is looked up by its name again."""
    service = service_of(request)
    try:
        return await _answer(request, call, answerer)
    except BlobMissing:
        if answerer.record is not None:
            service.registry.directory.forget(answerer.record.name)
        now = await asyncio.to_thread(resolve, service, call.body.model)
        if now.digest == answerer.digest:
            raise
        return await _answer(request, call, now)


async def _answer(request: Request, call: GenerationCall, answerer: Answerer) -> Response:
    service, body = service_of(request), call.body
    run = Run(service, call.prompts)
    chosen = samplings(call, service)
    timeout_s = body.timeout_s or service.settings.request_timeout_s
    run.submit(chosen, answerer.digest, body.stops, request.state.tenant, timeout_s)
    if answerer.record is not None:
        service.metrics.on_adapter(answerer.record.name)
    form = Answer(
        answerer,
        service.text,
        isinstance(body, ChatRequest),
        call.num_logprobs is not None,
        body.return_token_ids,
    )
    headers = {"X-Overtone-Adapter": answerer.header}
    if body.stream:
        return await _streaming(request, body, run, form, headers)
    choices = await unless_gone(request, finish(run))
    generated = sum(len(choice.sampled) for choice in choices)
    totals = usage(call.prompts, body.n, generated, run.num_cached(body.n))
    return JSONResponse(form.whole(choices, totals, run.mode), headers=headers)


async def _streaming(
    request: Request, body: GenerationRequest, run: Run, form: Answer, headers: dict[str, str]
) -> Response:
    """Wait for the first token, so that an error before it is still a proper status."""
    deltas = run.deltas()
    first = await unless_gone(request, anext(deltas))
    headers = headers | {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    events = _events(request, body, run, form, first, deltas)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _events(
    request: Request,
    body: GenerationRequest,
    run: Run,
    form: Answer,
    first: Delta,
    rest: AsyncIterator[Delta],
) -> AsyncIterator[str]:
    seen: set[int] = set()
    generated = 0
    try:
        async for delta in _chain(first, rest):
            generated += len(delta.sampled)
            piece = form.piece(delta, run.mode, delta.choice not in seen)
            seen.add(delta.choice)
            if run.is_over:
                cached = run.num_cached(body.n)
                piece["usage"] = usage(run.prompts, body.n, generated, cached)
            yield event_line(piece)
        if body.stream_options and body.stream_options.include_usage:
            totals = usage(run.prompts, body.n, generated, run.num_cached(body.n))
            yield event_line(form.closing(totals, run.mode))
    except Exception as error:
        log_unexpected(request, error)
        yield event_line(body_of(error))
    finally:
        run.close()
    yield "data: [DONE]\n\n"


async def _chain(first: Delta, rest: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
    yield first
    async for delta in rest:
        yield delta

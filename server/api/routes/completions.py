"""POST /v1/completions and /v1/chat/completions, whole or as server-sent events."""

from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from server.api.answerer import HEADER
from server.api.answering import streamed_answer, whole_answer
from server.api.bodies.answers import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CompletionChunk,
)
from server.api.callers import Caller
from server.api.calls import chat_call, completion_call, tokenized
from server.api.chat_schemas import ChatRequest
from server.api.completion_schemas import CompletionRequest, GenerationRequest
from server.api.describe import ANSWERS, INFER, answer, describe
from server.api.event_stream import EventStream, event_lines
from server.api.generation import GenerationCall
from server.api.json_answer import json_answer
from server.api.request import json_body, service_of, unless_gone
from server.service import Service

B = TypeVar("B", bound=GenerationRequest)

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/completions",
    **describe(
        "createCompletion",
        answer(Completion, events=CompletionChunk, headers=(HEADER,)),
        body=CompletionRequest,
        errors=ANSWERS,
        scopes=INFER,
    ),
)
async def completions(request: Request) -> Response:
    """Complete one prompt or many."""
    body = await json_body(request, CompletionRequest)
    return await _answer(request, body, completion_call)


@router.post(
    "/v1/chat/completions",
    **describe(
        "createChatCompletion",
        answer(ChatCompletion, events=ChatCompletionChunk, headers=(HEADER,)),
        body=ChatRequest,
        errors=ANSWERS,
        scopes=INFER,
    ),
)
async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    body = await json_body(request, ChatRequest)
    return await _answer(request, body, chat_call)


async def _answer(
    request: Request, body: B, call_of: Callable[[Service, B, Caller], GenerationCall]
) -> Response:
    service = service_of(request)
    call = await unless_gone(request, tokenized(service, body, request.state.caller, call_of))
    if not body.stream:
        whole = await unless_gone(request, whole_answer(service, call))
        return await json_answer(whole.body, whole.answerer.headers)
    streamed = await unless_gone(request, streamed_answer(service, call))
    lines = event_lines(request, streamed.events)
    return EventStream(lines, streamed.answerer.headers)

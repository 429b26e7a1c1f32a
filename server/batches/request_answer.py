"""One request of a batch, answered as if it had been sent to its endpoint, in the background."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from adapters_core import errors as adapter
from registry import RegistryUnavailable
from registry.batches.requests import BatchRequest
from server.api.answering import WholeAnswer, whole_answer
from server.api.callers import Caller
from server.api.calls import chat_call, completion_call
from server.api.chat_schemas import ChatRequest
from server.api.completion_schemas import CompletionRequest
from server.api.encoding_answers import classified, embedded
from server.api.encoding_schemas import ClassifyRequest, EmbeddingsRequest
from server.api.generation import GenerationCall
from server.api.responses.chats import chat_request, own_names
from server.api.responses.form import ResponseForm, response_of
from server.api.responses.schemas import ResponsesRequest
from server.api.validation import checked
from server.errors import (
    FAMILIES,
    Draining,
    NotReady,
    Overloaded,
    StorageFull,
    body_of,
    status_of,
)
from server.service import Service

_LOG = logging.getLogger("overtone.batches")
#: Errors that say nothing about the request: it is run again a little later.
PASSING = (
    *(Overloaded, Draining, NotReady, StorageFull, RegistryUnavailable),
    *(adapter.BasisPending, adapter.CanaryFailed),
)


@dataclass(frozen=True)
class Outcome:
    """What the endpoint would have answered: status and body."""

    status: int
    body: Mapping[str, Any]

    @property
    def is_good(self) -> bool:
        """Return whether the request succeeded."""
        return self.status < 400


async def outcome_of(service: Service, request: BatchRequest, caller: Caller) -> Outcome:
    """Return a request's outcome; an error that is its own is one.

    Raises:
        Exception: one of `PASSING`: the request is to be run again.
    """
    try:
        answer = await _ANSWERS[request.url](service, request.body, caller)
    except PASSING:
        raise
    except Exception as error:
        if not isinstance(error, FAMILIES):
            _LOG.error("a batch's request failed", exc_info=error)
        return Outcome(status_of(error), body_of(error))
    return Outcome(200, answer.body)


async def _completion(service: Service, body: Any, caller: Caller) -> WholeAnswer:
    def call() -> GenerationCall:
        return completion_call(service, checked(CompletionRequest, body), caller)

    return await _generated(service, call)


async def _chat(service: Service, body: Any, caller: Caller) -> WholeAnswer:
    return await _generated(service, lambda: chat_call(service, checked(ChatRequest, body), caller))


async def _response(service: Service, body: Any, caller: Caller) -> WholeAnswer:
    given = await asyncio.to_thread(checked, ResponsesRequest, body)
    with own_names():
        chat = await _generated(service, lambda: chat_call(service, chat_request(given), caller))
    form = ResponseForm(given, service.sampling_defaults)
    return replace(chat, body=response_of(form, chat.body))


async def _embedding(service: Service, body: Any, caller: Caller) -> WholeAnswer:
    given = await asyncio.to_thread(checked, EmbeddingsRequest, body)
    return await embedded(service, given, caller, is_background=True)


async def _classification(service: Service, body: Any, caller: Caller) -> WholeAnswer:
    given = await asyncio.to_thread(checked, ClassifyRequest, body)
    return await classified(service, given, caller, is_background=True)


async def _generated(service: Service, make: Callable[[], GenerationCall]) -> WholeAnswer:
    call = await asyncio.to_thread(make)
    # The server's own limit of a request's time holds for live requests alone.
    low = replace(call, is_background=True, timeout_s=call.body.timeout_s)
    return await whole_answer(service, low)


_ANSWERS: Mapping[str, Callable[[Service, Any, Caller], Awaitable[WholeAnswer]]] = {
    "/v1/completions": _completion,
    "/v1/chat/completions": _chat,
    "/v1/responses": _response,
    "/v1/embeddings": _embedding,
    "/v1/classify": _classification,
}

"""POST /v1/responses: OpenAI's newer shape of a chat, without state."""

from functools import partial

from fastapi import APIRouter, Request, Response

from server.api.answerer import HEADER
from server.api.answering import streamed_answer, whole_answer
from server.api.bodies.responses import Response as ResponseBody
from server.api.bodies.responses import ResponseEvent
from server.api.calls import chat_call, tokenized
from server.api.describe import ANSWERS, INFER, answer, describe
from server.api.event_stream import EventStream, named_lines
from server.api.json_answer import json_answer
from server.api.request import error_body, json_body, service_of, unless_gone
from server.api.responses.chats import chat_request, own_names
from server.api.responses.events import response_events
from server.api.responses.form import ResponseForm, response_of
from server.api.responses.schemas import ResponsesRequest

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/responses",
    **describe(
        "createResponse",
        answer(ResponseBody, events=ResponseEvent, is_named=True, headers=(HEADER,)),
        body=ResponsesRequest,
        errors=ANSWERS,
        scopes=INFER,
    ),
)
async def responses(request: Request) -> Response:
    """Answer a conversation in the shape of OpenAI's Responses API; nothing is stored."""
    body = await json_body(request, ResponsesRequest)
    service = service_of(request)
    form = ResponseForm(body, service.sampling_defaults)
    with own_names():
        chat = chat_request(body)
        making = tokenized(service, chat, request.state.caller, chat_call)
        call = await unless_gone(request, making)
        if not body.stream:
            whole = await unless_gone(request, whole_answer(service, call))
            return await json_answer(response_of(form, whole.body), whole.answerer.headers)
        streamed = await unless_gone(request, streamed_answer(service, call))
    events = response_events(form, streamed.events, partial(error_body, request))
    return EventStream(named_lines(events), streamed.answerer.headers)

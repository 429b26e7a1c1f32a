"""POST /v1/compare: one prompt or conversation, answered by several models side by side."""

from functools import partial

from fastapi import APIRouter, Request, Response

from server.api.answering import accept_all
from server.api.bodies.comparisons import ComparedChunk, Comparison
from server.api.calls import tokenized
from server.api.compare_schemas import CompareRequest, kind_of
from server.api.comparison import compare_calls, comparison_events, whole_comparison
from server.api.describe import ANSWERS, INFER, answer, describe
from server.api.event_stream import EventStream, event_lines
from server.api.json_answer import json_answer
from server.api.request import checked_body, error_body, service_of, unless_gone
from server.api.validation import checked

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/compare",
    **describe(
        "createComparison",
        answer(Comparison, events=ComparedChunk),
        body=CompareRequest,
        errors=ANSWERS,
        scopes=INFER,
    ),
)
async def compare(request: Request) -> Response:
    """Ask several models the same, in one batch; a model that fails is an entry with its error."""
    body = await checked_body(request, lambda given: checked(kind_of(given), given))
    service = service_of(request)
    making = tokenized(service, body, request.state.caller, compare_calls)
    calls = await unless_gone(request, making)
    accepted, on_error = await accept_all(service, calls), partial(error_body, request)
    if body.stream:
        events = comparison_events(service, accepted, on_error)
        return EventStream(event_lines(request, events))
    whole = whole_comparison(service, accepted, on_error)
    return await json_answer(await unless_gone(request, whole))

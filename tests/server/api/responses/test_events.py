"""The events of a response, made of a chat's, held against OpenAI's own types."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from server.api.responses.events import response_events
from server.api.responses.form import ResponseForm, response_of
from server.api.responses.schemas import ResponsesRequest
from server.api.validation import checked
from server.base.sampling_defaults import SamplingDefaults
from server.errors import DeadlineExceeded, body_of

Json = dict[str, Any]

USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 5,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
}
BY = {"adapter": None, "version": None, "digest": None, "mode": "base"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
ANY_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def form() -> ResponseForm:
    asked = {"model": "m", "input": "Hi", "tools": [TOOL], "metadata": {"a": "b"}}
    return ResponseForm(checked(ResponsesRequest, asked), SamplingDefaults())


def text(content: str) -> Json:
    return {"content": content}


def piece(index: int, arguments: str, **first: Any) -> Json:
    name = {"name": first["name"]} if first else {}
    begin = {"id": f"call_{index}", "type": "function"} if first else {}
    return {"tool_calls": [{"index": index, **begin, "function": {**name, "arguments": arguments}}]}


def events(
    deltas: Sequence[Json], reason: str = "stop", error: Exception | None = None
) -> list[Json]:
    """Return the events of a chat of these deltas, each checked by OpenAI's own types."""

    async def chat() -> AsyncGenerator[Json]:
        for delta in [{"role": "assistant", "content": ""}, *deltas]:
            yield {"choices": [{"delta": delta, "finish_reason": None}], "usage": None}
        if error is not None:
            raise error
        yield {"choices": [{"delta": {"content": ""}, "finish_reason": reason}], "usage": None}
        yield {"choices": [], "usage": USAGE, "overtone": BY}

    async def all_of() -> list[Json]:
        return [
            dict(event) async for event in response_events(form(), chat(), lambda e: body_of(e))
        ]

    found = asyncio.run(all_of())
    for number, event in enumerate(found):
        assert event["sequence_number"] == number
        assert ANY_EVENT.validate_python(event).type == event["type"]
    return found


def short(found: Sequence[Json]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in found]


def test_a_text_and_two_calls_are_three_items_one_after_another() -> None:
    deltas = [
        text("Let me "),
        text("see."),
        piece(0, "", name="f"),
        piece(0, '{"x":'),
        piece(0, " 1}"),
        piece(1, "{}", name="g"),
    ]
    found = events(deltas, "tool_calls")
    arguments = ["function_call_arguments.delta"]
    ends = ["function_call_arguments.done", "output_item.done"]
    assert short(found) == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", *arguments * 2, *ends),
        *("output_item.added", *arguments, *ends),
        "completed",
    ]
    places = [event["output_index"] for event in found if "output_index" in event]
    assert places == [0] * 7 + [1] * 5 + [2] * 4
    message, first, second = found[-1]["response"]["output"]
    assert message["content"][0]["text"] == "Let me see."
    assert (first["call_id"], first["name"], first["arguments"]) == ("call_0", "f", '{"x": 1}')
    assert (second["call_id"], second["name"], second["arguments"]) == ("call_1", "g", "{}")
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert done == [message, first, second]


def test_an_answer_of_calls_alone_has_no_message() -> None:
    found = events([piece(0, "{}", name="f")], "tool_calls")
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["function_call"]
    assert found[-1]["response"]["usage"]["input_tokens_details"]["cached_tokens"] == 2


def test_an_empty_answer_is_an_empty_message() -> None:
    found = events([])
    (item,) = found[-1]["response"]["output"]
    assert (item["type"], item["content"][0]["text"], item["status"]) == (
        "message",
        "",
        "completed",
    )


def test_what_is_cut_is_incomplete() -> None:
    found = events([text("a")], "length")
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["output"][0]["status"] == "incomplete"
    assert found[-2]["item"]["status"] == "incomplete"


def test_a_failure_ends_the_events_with_what_was_complete() -> None:
    late = DeadlineExceeded("no end within the request's time")
    found = events([text("a"), piece(0, "{", name="f")], error=late)
    failed = found[-1]["response"]
    assert (found[-1]["type"], failed["status"]) == ("response.failed", "failed")
    assert [item["type"] for item in failed["output"]] == ["message"]
    assert failed["error"]["code"] == "server_error"
    assert failed["error"]["type"] == "deadline_exceeded"


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls"])
@pytest.mark.parametrize("content", ["", "Hello", None])
@pytest.mark.parametrize("num_calls", [0, 2])
def test_a_whole_response_is_that_of_the_stream(
    reason: str, content: str | None, num_calls: int
) -> None:
    calls = [
        {"id": f"call_{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for i in range(num_calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": calls or None}
    choice = {"message": message, "finish_reason": reason}
    whole = response_of(form(), {"choices": [choice], "usage": USAGE, "overtone": BY})
    deltas = [text(content or ""), *(piece(i, "{}", name="f") for i in range(num_calls))]
    streamed = events(deltas, reason)[-1]["response"]
    Response.model_validate(whole)
    assert plain(whole) == plain(streamed)


def plain(response: Json) -> Json:
    """Return a response without what is made anew for each."""
    output = [{**item, "id": None} for item in response["output"]]
    return {**response, "id": None, "created_at": None, "output": output}

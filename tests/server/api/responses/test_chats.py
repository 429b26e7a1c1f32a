"""The chat that a response's request becomes: items to messages, options to a chat's options."""

from typing import Any

import pytest

from server.api.responses.chats import chat_request, own_names
from server.api.responses.schemas import ResponsesRequest
from server.api.validation import checked
from server.errors import InvalidRequest

CALLS = [
    {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "f", "arguments": '{"x": 1}'},
    {"type": "function_call", "call_id": "b", "name": "g", "arguments": "{}", "status": None},
]
RESULTS = [
    {"type": "function_call_output", "call_id": "a", "output": "one"},
    {
        "type": "function_call_output",
        "call_id": "b",
        "output": [{"type": "input_text", "text": "two"}],
    },
]


def messages(given: Any, **fields: Any) -> list[dict[str, Any]]:
    body = checked(ResponsesRequest, {"model": "m", "input": given, **fields})
    return [message.given() for message in chat_request(body).messages]


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": id, "type": "function", "function": function}


def test_a_text_is_what_the_user_says() -> None:
    assert messages("Hi") == [{"role": "user", "content": "Hi"}]
    assert messages("Hi", instructions="Be kind.") == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


def test_calls_are_one_turn_of_the_assistant_with_the_text_before_them() -> None:
    said = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
    }
    user = {"role": "user", "content": "Hi"}
    both = [call("a", "f", '{"x": 1}'), call("b", "g", "{}")]
    results = [
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "two"}]},
    ]
    text = [{"type": "text", "text": "Let me see."}]
    assert messages([user, said, *CALLS, *RESULTS]) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": text, "tool_calls": both},
        *results,
    ]
    assert messages([user, *CALLS, *RESULTS]) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": both},
        *results,
    ]


def test_calls_after_a_result_are_a_turn_of_their_own() -> None:
    turns = messages([CALLS[0], RESULTS[0], CALLS[1], RESULTS[1], {"role": "user", "content": "x"}])
    assert [turn["role"] for turn in turns] == ["assistant", "tool", "assistant", "tool", "user"]
    assert [len(turn.get("tool_calls", ())) for turn in turns] == [1, 0, 1, 0, 0]


def test_two_messages_of_the_assistant_stay_two() -> None:
    said = {"role": "assistant", "content": "a"}
    assert messages([said, said, CALLS[0]]) == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "a", "tool_calls": [call("a", "f", '{"x": 1}')]},
    ]


def test_sampling_and_limits_are_the_chats() -> None:
    asked = {"temperature": 0.3, "top_p": 0.9, "seed": 4, "max_output_tokens": 7, "timeout_s": 2}
    body = checked(ResponsesRequest, {"model": "m", "input": "Hi", "stream": True, **asked})
    chat = chat_request(body)
    assert (chat.temperature, chat.top_p, chat.seed, chat.timeout_s) == (0.3, 0.9, 4, 2)
    assert (chat.max_completion_tokens, chat.n, chat.stream) == (7, 1, True)
    assert chat.stream_options is not None
    assert chat.stream_options.include_usage


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("messages", "input"),
        ("messages[2].tool_calls[0].function.arguments", "input"),
        ("tools[3].function.parameters", "tools[3].parameters"),
        ("max_completion_tokens", "max_output_tokens"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("response_format.type", "text.format.type"),
        ("temperature", "temperature"),
        (None, None),
    ],
)
def test_an_error_about_a_chats_field_names_the_callers_field(
    theirs: str | None, ours: str | None
) -> None:
    with pytest.raises(InvalidRequest) as caught, own_names():
        raise InvalidRequest("wrong", theirs)
    assert caught.value.param == ours

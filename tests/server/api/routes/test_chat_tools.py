"""Tools in chats over HTTP, by OpenAI's own client: calls whole and in pieces, as the base said."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

import tool_templates
from live import Live, serving, settings_of
from scripted import Script
from waiting import until

ONE = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
TWO = '<tool_call>\n{"name": "time_of", "arguments": {"zone": "CET"}}\n</tool_call>'
TEXTS = {
    "plain": "It is warm.\n",
    "one": ONE,
    "two": f"Let me look.\n{ONE}\n{TWO}",
    "malformed": '<tool_call>\n{"name": "weather", "arguments": {"city": }}\n</tool_call>',
    "unknown": '<tool_call>{"name": "drop_table", "arguments": {}}</tool_call>',
}
SCRIPT = Script(tool_templates.tokenizer("hermes"), TEXTS)


class weather(BaseModel):  # the name of the function
    """Look the weather up."""

    city: str


class time_of(BaseModel):
    """Look the time up."""

    zone: str


TOOLS: Any = [openai.pydantic_function_tool(weather), openai.pydantic_function_tool(time_of)]


#: The same, whose arguments may be anything.
LOOSE: Any = [
    {"type": "function", "function": {**tool["function"], "strict": False}} for tool in TOOLS
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, few_threads: None) -> Iterator[Live]:
    folder = SCRIPT.save(tmp_path_factory.mktemp("scripted"))
    with serving(settings_of(folder, tmp_path_factory.mktemp("data"))) as server:
        yield server


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    with closing(OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)) as made:
        yield made


@pytest.fixture
def asked(live: Live) -> Callable[..., dict[str, Any]]:
    """Return the body of a chat that one of the texts answers."""
    return lambda name, **more: SCRIPT.body(live, name, **({"tools": TOOLS} | more))


Asked = Callable[..., dict[str, Any]]


def test_a_call_is_parsed_and_ends_the_answer(client: OpenAI, asked: Asked) -> None:
    answer = client.chat.completions.create(**asked("one"))
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Köln"}')
    assert len(call.id) == 9


def test_content_stands_before_several_calls_with_ids_of_their_own(
    client: OpenAI, asked: Asked
) -> None:
    message = client.chat.completions.create(**asked("two")).choices[0].message
    assert message.content == "Let me look."
    calls = message.tool_calls or []
    assert [call.function.name for call in calls if call.type == "function"] == [
        "weather",
        "time_of",
    ]
    assert len({call.id for call in calls}) == 2


def test_the_client_parses_arguments_whole_and_streamed(client: OpenAI, asked: Asked) -> None:
    body = asked("two")
    parsed = client.chat.completions.parse(**body).choices[0].message
    assert [call.function.parsed_arguments for call in parsed.tool_calls or []] == [
        weather(city="Köln"),
        time_of(zone="CET"),
    ]
    with client.chat.completions.stream(**body) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [event.parsed_arguments for event in done] == [weather(city="Köln"), time_of(zone="CET")]
    assert final.finish_reason == "tool_calls"
    assert final.message.content == "Let me look."
    assert [call.function.parsed_arguments for call in final.message.tool_calls or []] == [
        weather(city="Köln"),
        time_of(zone="CET"),
    ]


@pytest.mark.parametrize(("name", "count"), [*((name, 1) for name in TEXTS), ("two", 2)])
def test_a_stream_adds_up_to_the_whole_answer(
    client: OpenAI, asked: Asked, name: str, count: int
) -> None:
    body = asked(name, n=count, tools=LOOSE)
    whole = client.chat.completions.create(**body)
    contents = ["" for _ in range(count)]
    calls: list[dict[int, dict[str, Any]]] = [{} for _ in range(count)]
    reasons: list[str | None] = [None] * count
    for chunk in client.chat.completions.create(**body, stream=True):
        (choice,) = chunk.choices
        assert reasons[choice.index] is None
        reasons[choice.index] = choice.finish_reason
        contents[choice.index] += choice.delta.content or ""
        for piece in choice.delta.tool_calls or []:
            assert choice.finish_reason is None
            assert piece.function is not None
            if piece.index not in calls[choice.index]:
                assert (piece.type, piece.function.arguments) == ("function", "")
                made = {"name": piece.function.name, "id": piece.id, "arguments": ""}
                calls[choice.index][piece.index] = made
            else:
                assert (piece.id, piece.type, piece.function.name) == (None, None, None)
            calls[choice.index][piece.index]["arguments"] += piece.function.arguments or ""
    for choice in whole.choices:
        assert contents[choice.index] == (choice.message.content or "")
        assert reasons[choice.index] == choice.finish_reason
        told = [
            (call.function.name, call.function.arguments)
            for call in choice.message.tool_calls or []
            if call.type == "function"
        ]
        found = calls[choice.index]
        assert [(found[i]["name"], found[i]["arguments"]) for i in range(len(found))] == told


@pytest.mark.parametrize("name", ["plain", "malformed", "unknown"])
def test_what_is_no_call_is_content(client: OpenAI, asked: Asked, name: str) -> None:
    choice = client.chat.completions.create(**asked(name, tools=LOOSE)).choices[0]
    assert (choice.message.content, choice.finish_reason) == (TEXTS[name], "stop")
    assert choice.message.tool_calls is None


def test_without_parallel_calls_the_answer_ends_with_its_first(live: Live, asked: Asked) -> None:
    body = asked("two", parallel_tool_calls=False)
    told = live.http.post("/v1/chat/completions", json=body).json()
    (choice,) = told["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert len(choice["message"]["tool_calls"]) == 1
    assert told["usage"]["completion_tokens"] < len(TEXTS["two"].encode())
    until(lambda: live.num_open == 0)


def test_a_call_that_is_cut_off_is_content(client: OpenAI, asked: Asked) -> None:
    body = asked("one", tools=LOOSE)
    choice = client.chat.completions.create(**body, max_tokens=8).choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls is None
    assert TEXTS["one"].startswith(choice.message.content or "?")


def test_with_tool_choice_none_the_base_is_told_of_no_tools(live: Live, asked: Asked) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}

    def prompt_tokens(**more: Any) -> int:
        answer = live.http.post("/v1/chat/completions", json=body | more)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["usage"]["prompt_tokens"])

    plain = prompt_tokens()
    assert prompt_tokens(tools=TOOLS, tool_choice="none") == plain
    assert prompt_tokens(tools=[], tool_choice="auto", functions=[], function_call="none") == plain
    assert prompt_tokens(tools=TOOLS) > plain
    raw = live.http.post("/v1/chat/completions", json=asked("one", tool_choice="none")).json()
    assert raw["choices"][0]["message"] == {"role": "assistant", "content": TEXTS["one"]}


def test_an_agents_loop_goes_round(client: OpenAI, live: Live, asked: Asked) -> None:
    first = client.chat.completions.create(**asked("one"))
    message = first.choices[0].message
    assert message.tool_calls is not None
    answer = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "warm"}
    said = [{"role": "user", "content": "?"}, message.model_dump(), answer]
    body = SCRIPT.body(
        live, "plain", tools=TOOLS, messages=[*said, {"role": "user", "content": ""}]
    )
    last = client.chat.completions.create(**body).choices[0]
    assert (last.message.content, last.finish_reason) == (TEXTS["plain"], "stop")


def test_logprobs_and_token_ids_are_those_of_all_tokens(live: Live, asked: Asked) -> None:
    body = asked("two", logprobs=True, return_token_ids=True)
    whole = live.http.post("/v1/chat/completions", json=body).json()["choices"][0]
    answer = live.http.post("/v1/chat/completions", json={**body, "stream": True})
    chunks = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line[6:7] == "{"]
    pieces = [chunk["choices"][0] for chunk in chunks]
    ids = [token for piece in pieces for token in piece.get("token_ids", ())]
    assert ids == whole["token_ids"]
    tokens = [
        one["token"]
        for piece in pieces
        for one in (piece["logprobs"] or {"content": []})["content"]
    ]
    assert tokens == [one["token"] for one in whole["logprobs"]["content"]]


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f g"}}]}, "tools[0].function.name"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].function.name"),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}
                ]
            },
            "tools[0].function.parameters",
        ),
        ({"tools": [TOOLS[0]] * 129}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "any"}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
        ),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"parallel_tool_calls": 7}, "parallel_tool_calls"),
        (
            {"chat_template_kwargs": {"enable_thinking": True}},
            "chat_template_kwargs.enable_thinking",
        ),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
    ],
)
def test_wrong_tools_are_refused_by_name(live: Live, params: dict[str, Any], param: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], **params}
    answer = live.http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_message_is_continued(live: Live) -> None:
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "It"}]
    body = SCRIPT.body(live, "plain", messages=said, continue_final_message=True)
    told = live.http.post("/v1/chat/completions", json=body).json()
    assert told["choices"][0]["message"]["content"] == TEXTS["plain"]
    ends = {"model": "tiny", "messages": said[:1], "max_tokens": 1}
    counts = [
        live.http.post("/v1/chat/completions", json={**ends, **more}).json()["usage"][
            "prompt_tokens"
        ]
        for more in ({}, {"add_generation_prompt": False})
    ]
    assert counts[0] - counts[1] == len("assistant\n") + 1

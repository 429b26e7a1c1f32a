"""Tools in responses, by OpenAI's own client: the calls of the chat, as items and as events."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import ParsedResponseFunctionToolCall
from pydantic import BaseModel

import tool_templates
from live import Live, serving, settings_of
from scripted import Script

ONE = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
TWO = '<tool_call>\n{"name": "time_of", "arguments": {"zone": "CET"}}\n</tool_call>'
TEXTS = {"plain": "It is warm.\n", "one": ONE, "two": f"Let me look.\n{ONE}\n{TWO}"}
SCRIPT = Script(tool_templates.tokenizer("hermes"), TEXTS)


class weather(BaseModel):  # the name of the function
    """Look the weather up."""

    city: str


class time_of(BaseModel):
    """Look the time up."""

    zone: str


CHAT_TOOLS: Any = [openai.pydantic_function_tool(weather), openai.pydantic_function_tool(time_of)]
TOOLS: Any = [{"type": "function", **tool["function"]} for tool in CHAT_TOOLS]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, few_threads: None) -> Iterator[Live]:
    folder = SCRIPT.save(tmp_path_factory.mktemp("scripted"))
    with serving(settings_of(folder, tmp_path_factory.mktemp("data"))) as server:
        yield server


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    with closing(OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)) as made:
        yield made


Asked = Callable[..., dict[str, Any]]


@pytest.fixture
def asked(live: Live) -> Asked:
    """Return the arguments of a response that one of the texts answers."""

    def of(name: str, **more: Any) -> dict[str, Any]:
        chat = SCRIPT.body(live, name, tools=CHAT_TOOLS)
        return {"model": "tiny", "input": chat["messages"], "temperature": 0, "tools": TOOLS} | more

    return of


def test_calls_are_items_behind_the_text(client: OpenAI, asked: Asked) -> None:
    told = client.responses.create(**asked("two"))
    assert [item.type for item in told.output] == ["message", "function_call", "function_call"]
    assert (told.output_text, told.status) == ("Let me look.", "completed")
    calls = [item for item in told.output if item.type == "function_call"]
    assert [(call.name, call.arguments) for call in calls] == [
        ("weather", '{"city": "Köln"}'),
        ("time_of", '{"zone": "CET"}'),
    ]
    assert len({call.call_id for call in calls} | {call.id for call in calls}) == 4
    assert [tool.name for tool in told.tools if tool.type == "function"] == ["weather", "time_of"]


def test_a_stream_has_the_same_items(client: OpenAI, asked: Asked) -> None:
    whole = client.responses.create(**asked("two"))
    with client.responses.stream(**asked("two")) as stream:
        events: list[Any] = list(stream)
        final = stream.get_final_response()
    assert final.output_text == whole.output_text
    told = [item.arguments for item in final.output if item.type == "function_call"]
    assert told == [item.arguments for item in whole.output if item.type == "function_call"]
    kind = "response.function_call_arguments.delta"
    for index, arguments in enumerate(told, start=1):
        pieces = [e.delta for e in events if e.type == kind and e.output_index == index]
        assert "".join(pieces) == arguments


def test_the_client_parses_arguments(client: OpenAI, asked: Asked) -> None:
    parsed = client.responses.parse(**asked("two", tools=CHAT_TOOLS))
    calls = [item for item in parsed.output if isinstance(item, ParsedResponseFunctionToolCall)]
    assert [call.parsed_arguments for call in calls] == [weather(city="Köln"), time_of(zone="CET")]


def test_an_agents_loop_goes_round(client: OpenAI, live: Live, asked: Asked) -> None:
    first = client.responses.create(**asked("one"))
    (call,) = first.output
    assert call.type == "function_call"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "warm"}
    function = {"name": call.name, "arguments": call.arguments}
    turns = [
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call.call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call.call_id, "content": "warm"},
        {"role": "user", "content": ""},
    ]
    body = SCRIPT.body(live, "plain", tools=CHAT_TOOLS, messages=turns)
    given: Any = [{"role": "user", "content": "?"}, *first.output, result, body["messages"][-1]]
    last = client.responses.create(**asked("one", input=given))
    assert (last.output_text, last.status) == (TEXTS["plain"], "completed")


def test_one_call_at_a_time_and_none(client: OpenAI, live: Live, asked: Asked) -> None:
    single = client.responses.create(**asked("two", parallel_tool_calls=False))
    assert [item.type for item in single.output] == ["message", "function_call"]
    chat = SCRIPT.body(live, "one", tools=CHAT_TOOLS, tool_choice="none")
    none = client.responses.create(**asked("one", input=chat["messages"], tool_choice="none"))
    assert none.output_text == ONE


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"tools": [{"type": "function", "name": "f g", "parameters": {}}]}, "tools[0].name"),
        (
            {"tools": [{"type": "function", "name": "f", "parameters": {"type": "array"}}]},
            "tools[0].parameters",
        ),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools[2].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice"),
        (
            {"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]},
            "input",
        ),
        (
            {
                "input": [
                    {"type": "function_call", "call_id": "x", "name": "f", "arguments": "[1]"},
                    {"type": "function_call_output", "call_id": "x", "output": "y"},
                ]
            },
            "input",
        ),
    ],
)
def test_wrong_tools_are_refused_by_their_own_names(
    live: Live, params: dict[str, Any], param: str
) -> None:
    answer = live.http.post("/v1/responses", json={"model": "tiny", "input": "?", **params})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(param)

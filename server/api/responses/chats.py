"""From a body of POST /v1/responses to the body of the chat that answers it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from server.api.chat_schemas import ChatRequest
from server.api.responses.schemas import (
    FunctionTool,
    InputCall,
    InputItem,
    InputMessage,
    InputResult,
    InputText,
    NamedFunction,
    NamedSchemaFormat,
    ResponsesRequest,
)
from server.api.sampling_schemas import SamplingFields
from server.api.validation import checked
from server.errors import InvalidRequest

Json = dict[str, Any]

#: How a chat's field is called here. Items and messages have different numbers.
_NAMES = (
    (r"messages.*", "input"),
    (r"max_completion_tokens", "max_output_tokens"),
    (r"response_format(\.json_schema)?", "text.format"),
    (r"(tools\[\d+\]|tool_choice)\.function", r"\1"),
)


def chat_request(body: ResponsesRequest) -> ChatRequest:
    """Return the chat that answers a response's request.

    Raises:
        InvalidRequest: the chat has a field that is wrong.
    """
    sampling = {name: getattr(body, name) for name in body.model_fields_set}
    asked: Json = {name: sampling[name] for name in SamplingFields.model_fields if name in sampling}
    asked |= {
        "model": body.model,
        "messages": list(_messages(body)),
        "max_completion_tokens": body.max_output_tokens,
        "timeout_s": body.timeout_s,
        "stream": body.stream,
        "tools": list(map(_tool, body.tools)),
        "tool_choice": _tool_choice(body),
        "parallel_tool_calls": body.parallel_tool_calls,
    }
    if body.text.format.type != "text":
        asked["response_format"] = _format(body)
    if body.stream:
        asked["stream_options"] = {"include_usage": True}
    return checked(ChatRequest, asked)


@contextmanager
def own_names() -> Iterator[None]:
    """Let errors about a chat's fields leave the block with the names that the caller used."""
    try:
        yield
    except InvalidRequest as error:
        for theirs, ours in _NAMES:
            error.param = error.param and re.sub(f"^{theirs}", ours, error.param)
        raise


def _messages(body: ResponsesRequest) -> Iterator[Json]:
    if body.instructions:
        yield {"role": "system", "content": body.instructions}
    if isinstance(body.input, str):
        yield {"role": "user", "content": body.input}
        return
    turn: Json | None = None  # the assistant's, which may consist of a message and of calls
    for item in body.input:
        message = _message(item)
        if isinstance(item, InputCall) and turn is not None:
            turn["tool_calls"] = [*turn.get("tool_calls", ()), *message["tool_calls"]]
            continue
        if turn is not None:
            yield turn
        turn = message if message["role"] == "assistant" else None
        if turn is None:
            yield message
    if turn is not None:
        yield turn


def _message(item: InputItem) -> Json:
    if isinstance(item, InputMessage):
        return {"role": item.role, "content": _content(item.content)}
    if isinstance(item, InputResult):
        return {"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output)}
    function = {"name": item.name, "arguments": item.arguments}
    call = {"id": item.call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _content(given: str | Sequence[InputText]) -> Any:
    if isinstance(given, str):
        return given
    return [{"type": "text", "text": part.text} for part in given]


def _format(body: ResponsesRequest) -> Json:
    form = body.text.format.model_dump(by_alias=True, exclude_none=True)
    if not isinstance(body.text.format, NamedSchemaFormat):
        return form
    return {"type": form.pop("type"), "json_schema": form}


def _tool(tool: FunctionTool) -> Json:
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _tool_choice(body: ResponsesRequest) -> Any:
    choice = body.tool_choice
    if isinstance(choice, NamedFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return choice

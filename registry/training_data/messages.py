"""The messages of a chat to learn from: only what serving takes of a chat, or refused by name.

A field that serving does not give to the base's chat template would be ignored silently. Calls of
functions are learned as they are served: of functions that stand in the example's `tools`.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from adapters_core.calls.items import NAME
from adapters_core.tokens.messages import (
    ROLES,
    is_neutral,
    plain_messages,
    plain_tools,
    texts_of,
)

_TAKEN = ("role", "content", "refusal", "name", "tool_calls", "tool_call_id", "weight")
#: Field -> the only role that has it.
_OF_ROLE = {"tool_calls": "assistant", "refusal": "assistant", "tool_call_id": "tool"}


def check_messages(messages: Any, tools: Sequence[Mapping[str, Any]] = ()) -> None:
    """Refuse what is no chat with an answer to learn from.

    Args:
        messages: as the file has them.
        tools: checked ones.

    Raises:
        ValueError: the message follows upon "line 3: " and names the message and the field.
    """
    if not isinstance(messages, list) or not messages:
        raise ValueError("has messages that are no list of messages")
    names = {tool["function"]["name"] for tool in tools}
    for number, message in enumerate(messages, 1):
        _check_message(message, number)
        _check_calls(message, number, names)
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("has no message of the role assistant to learn from")
    if not any(map(is_learned, messages)):
        raise ValueError("has nothing to learn: all its answers have a `weight` of 0")
    plain_messages(messages)


def check_tools(tools: Any) -> None:
    """Refuse what are no tools of OpenAI's API.

    Raises:
        ValueError: the message follows upon "line 3: " and names the tool.
    """
    if not isinstance(tools, list):
        raise ValueError("has `tools` that are no list")
    for number, tool in enumerate(tools, 1):
        _check_tool(tool, number)
    plain_tools(tools)


def is_learned(message: Mapping[str, Any]) -> bool:
    """Return whether a checked message is an answer that is to be learned."""
    return message["role"] == "assistant" and message.get("weight") != 0


def _check_message(message: Any, number: int) -> None:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f"has a message, number {number}, without role and content as texts")
    if not is_neutral(message.get("function_call")):
        raise ValueError(f"has `function_call` in message {number}; write `tool_calls`")
    if message["role"] not in ROLES:
        known = ", ".join(ROLES)
        raise ValueError(
            f"has the role {message['role'][:40]!r} in message {number}; served are {known}"
        )
    _check_content(message, number)
    _check_weight(message, number)
    for name, value in message.items():
        if name not in _TAKEN and not is_neutral(value):
            raise ValueError(
                f"has the field `{name[:40]}` in message {number}, which serving gives to no chat "
                "template; remove it, or write what it says into `content`"
            )
    for name, role in _OF_ROLE.items():
        if message["role"] != role and not is_neutral(message.get(name)):
            raise ValueError(
                f"has `{name}` in message {number}, of the role {message['role']}; only messages "
                f"of the role {role} have it"
            )
    for name in ("name", "tool_call_id", "refusal"):
        if not isinstance(message.get(name), str | None):
            raise ValueError(f"has a `{name}` in message {number} that is no text")


def _check_content(message: Mapping[str, Any], number: int) -> None:
    content = message.get("content")
    says_else = bool(message.get("tool_calls") or message.get("refusal"))
    if "content" not in message and not says_else:
        raise ValueError(f"has a message, number {number}, without role and content as texts")
    if isinstance(content, list):
        for part in content:
            _check_part(part, number)
    elif not isinstance(content, str) and not (content is None and says_else):
        shown = "null" if content is None else str(content)[:40]
        raise ValueError(f"has {shown} as `content` of message {number}; expected a text")
    if is_learned(message) and not says_else and not "".join(texts_of(content)):
        way = "give it a text, or a `weight` of 0"
        raise ValueError(f"has an empty answer, message {number}: {way}")


def _check_part(part: Any, number: int) -> None:
    if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text":
        kind = part.get("type", "nothing") if isinstance(part, dict) else part
        raise ValueError(
            f"has a part of type {str(kind)[:40]!r} in `content` of message {number}; parts are "
            '{"type": "text", "text": …}'
        )
    if not isinstance(part["text"], str):
        raise ValueError(f"has a part without text in `content` of message {number}")


def _check_weight(message: Mapping[str, Any], number: int) -> None:
    weight = message.get("weight")
    if weight not in (None, 0, 1):
        raise ValueError(f"has a weight of {str(weight)[:40]!r}; 0 and 1 are known")
    if weight == 1 and message["role"] != "assistant":
        raise ValueError(
            f"has a `weight` of 1 on message {number}, of the role {message['role']}; only the "
            "assistant's messages are learned"
        )


def _check_calls(message: Mapping[str, Any], number: int, names: Collection[str]) -> None:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError(f"has `tool_calls` in message {number} that are no list")
    for call in calls:
        function = _function_of(call, {"id", "type", "function"})
        if function is None or not isinstance(function.get("arguments"), str):
            raise ValueError(
                f"has a call in message {number} that is not "
                '{"id": …, "type": "function", "function": {"name": …, "arguments": JSON as text}}'
            )
        if is_learned(message) and function["name"] not in names:
            raise ValueError(
                f"has a call of {function['name'][:40]!r} in message {number}, which is no "
                "function in `tools`: none that is not there is served"
            )


def _check_tool(tool: Any, number: int) -> None:
    function = _function_of(tool, {"type", "function"})
    if function is None:
        raise ValueError(
            f'has a tool, number {number}, that is not {{"type": "function", "function": '
            '{"name": …, "description": …, "parameters": {…}}}'
        )
    unknown = set(function) - {"name", "description", "parameters", "strict"}
    kinds = {"description": str, "parameters": dict, "strict": bool}
    wrong = [key for key, kind in kinds.items() if not isinstance(function.get(key), kind | None)]
    for name in [*unknown, *wrong]:
        raise ValueError(f"has a wrong field `{name[:40]}` in tool {number}")


def _function_of(given: Any, fields: Collection[str]) -> Mapping[str, Any] | None:
    """Return the function of a tool or a call; None if it has none with a name, or other fields."""
    if not isinstance(given, dict) or given.get("type", "function") != "function":
        return None
    function = given.get("function")
    if not isinstance(function, dict) or not set(given) <= set(fields):
        return None
    name = function.get("name")
    is_name = isinstance(name, str) and re.fullmatch(NAME, name) is not None
    return function if is_name else None

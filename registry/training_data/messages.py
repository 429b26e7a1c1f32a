"""The messages of a chat to learn from: only what serving takes of a chat, or refused by name.

A field that serving does not give to the base's chat template would be ignored silently, and an
answer that calls functions would be learned as an empty one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from adapters_core.tokens.prompts import ROLES, Message
from adapters_core.tokens.prompts import message as plain_message

_CALLS = ("tool_calls", "function_call")
_CALLS_REFUSED = (
    "calls of functions are not served, so they are not learned: write them into `content` as the "
    "text that is to be answered"
)


def is_neutral(value: Any) -> bool:
    """Return whether a field that is not taken has no content: null, or empty."""
    return value is None or value in ("", [], {})


def check_messages(messages: Any) -> None:
    """Refuse what is no chat with an answer to learn from.

    Raises:
        ValueError: the message follows upon "line 3: " and names the message and the field.
    """
    if not isinstance(messages, list) or not messages:
        raise ValueError("has messages that are no list of messages")
    for number, message in enumerate(messages, 1):
        _check_message(message, number)
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("has no message of the role assistant to learn from")
    if not any(map(is_learned, messages)):
        raise ValueError("has nothing to learn: all its answers have a `weight` of 0")


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return checked messages as chat templates read them."""
    return [plain_message(one["role"], _texts(one["content"])) for one in messages]


def is_learned(message: Mapping[str, Any]) -> bool:
    """Return whether a checked message is an answer that is to be learned."""
    return message["role"] == "assistant" and message.get("weight") != 0


def _check_message(message: Any, number: int) -> None:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f"has a message, number {number}, without role and content as texts")
    calls = next((name for name in _CALLS if not is_neutral(message.get(name))), None)
    if calls is not None:
        raise ValueError(f"has `{calls}` in message {number}; {_CALLS_REFUSED}")
    if message["role"] not in ROLES:
        known = ", ".join(ROLES)
        raise ValueError(
            f"has the role {message['role'][:40]!r} in message {number}; served are {known}"
        )
    _check_content(message, number)
    _check_weight(message, number)
    for name, value in message.items():
        if name not in ("role", "content", "weight") and not is_neutral(value):
            raise ValueError(
                f"has the field `{name[:40]}` in message {number}, which serving gives to no chat "
                "template; remove it, or write what it says into `content`"
            )


def _check_content(message: Mapping[str, Any], number: int) -> None:
    content = message.get("content")
    if "content" not in message:
        raise ValueError(f"has a message, number {number}, without role and content as texts")
    if isinstance(content, list):
        for part in content:
            _check_part(part, number)
    elif not isinstance(content, str):
        shown = "null" if content is None else str(content)[:40]
        raise ValueError(f"has {shown} as `content` of message {number}; expected a text")
    if is_learned(message) and not "".join(_texts(content)):
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


def _texts(content: str | Sequence[Mapping[str, str]]) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content]

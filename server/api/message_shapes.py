"""Messages with calls of functions in OpenAI's shapes, whole and in pieces."""

from collections.abc import Sequence
from typing import Any

from server.chat.message_stream import CallDelta, MessageDelta, whole_calls

Json = dict[str, Any]


def whole_message(content: str, deltas: Sequence[MessageDelta] | None) -> Json:
    """Return an answer's message.

    Args:
        content: its text without calls.
        deltas: all of it, if it may have calls.
    """
    message: Json = {"role": "assistant", "content": content}
    calls = whole_calls(deltas or ())
    if calls:
        message |= {"content": content or None, "tool_calls": list(map(_whole, calls))}
    return message


def message_parts(deltas: Sequence[MessageDelta]) -> list[Json]:
    """Return the `delta` objects of what is new of a message, one for each chunk."""
    parts: list[Json] = []
    for delta in deltas:
        if delta.content:
            parts.append({"content": delta.content})
        if delta.call is not None:
            parts.append({"tool_calls": [_piece(delta.call)]})
    return parts


def _whole(call: CallDelta) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _piece(call: CallDelta) -> Json:
    if call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {"index": call.index, **_whole(call)}

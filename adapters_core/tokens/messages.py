"""Messages and tools of OpenAI's API as chat templates read them.

Templates know few roles: `developer` is `system`. A content is one text, a refusal is what the
assistant has said. Arguments of calls are objects, not texts. Results of an answer's calls stand in
the order of the calls, since most templates write no ids; each has its function's name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapters_core.calls.items import as_object

#: Roles of messages that are served, and what templates call them.
ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
#: Of a function's fields those that templates are given, in this order; `strict` they do not know.
_SHOWN = ("name", "description", "parameters")
#: A message as templates read it.
Message = dict[str, Any]
#: A tool as templates read it: `{"type": "function", "function": {…}}`.
Tool = dict[str, Any]


class PartRefused(ValueError):
    """A part of a chat cannot be read.

    Args:
        where: its path, such as `messages[2].tool_call_id`.
        reason: in words.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


def is_neutral(value: Any) -> bool:
    """Return whether a field that is not taken has no content: null, or empty."""
    return value is None or value in ("", [], {})


def message(role: str, content: str | Iterable[str]) -> Message:
    """Return a message as templates read it.

    Args:
        role: one of `ROLES`.
        content: a text, or the texts of its parts.
    """
    return {"role": ROLES[role], "content": "".join(content)}


def plain_messages(given: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return a chat's messages as templates read them.

    Args:
        given: OpenAI's, of the right types.

    Raises:
        PartRefused: arguments are no JSON object, an id stands for two calls, or a result is that
            of no call.
    """
    made = [_plain(each, number) for number, each in enumerate(given)]
    for number, each in enumerate(made):
        if each["role"] == "tool" and (number == 0 or made[number - 1]["role"] != "tool"):
            stop = next(
                (n for n in range(number, len(made)) if made[n]["role"] != "tool"), len(made)
            )
            calls = made[number - 1].get("tool_calls", []) if number else []
            made[number:stop] = _in_order(made[number:stop], calls, number)
    return made


def plain_tools(given: Iterable[Mapping[str, Any]]) -> list[Tool]:
    """Return tools as templates read them.

    Args:
        given: OpenAI's, of the right types.

    Raises:
        PartRefused: two functions have one name.
    """
    made: list[Tool] = []
    names = set[str]()
    for number, each in enumerate(given):
        function = each["function"]
        if function["name"] in names:
            where = f"tools[{number}].function.name"
            raise PartRefused(where, f"{function['name']!r} is the name of two functions")
        names.add(function["name"])
        shown = {key: function[key] for key in _SHOWN if function.get(key) is not None}
        made.append({"type": "function", "function": shown})
    return made


def texts_of(content: str | Sequence[Mapping[str, str]] | None) -> list[str]:
    """Return the texts of a content."""
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    return [part["refusal" if part["type"] == "refusal" else "text"] for part in content]


def _plain(given: Mapping[str, Any], number: int) -> Message:
    texts = [*texts_of(given.get("content")), *texts_of(given.get("refusal"))]
    made = message(given["role"], texts)
    if given.get("name"):
        made["name"] = given["name"]
    if given.get("tool_call_id"):
        made["tool_call_id"] = given["tool_call_id"]
    if given.get("tool_calls"):
        made["tool_calls"] = _calls(given["tool_calls"], f"messages[{number}].tool_calls")
    return made


def _calls(given: Sequence[Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    ids = set[str]()
    for number, call in enumerate(given):
        function, call_id = call["function"], call.get("id")
        try:
            arguments = as_object(function["arguments"] or "{}")
        except ValueError as error:
            path = f"{where}[{number}].function.arguments"
            raise PartRefused(path, f"the text {error}") from error
        own: dict[str, Any] = {"type": "function"}
        if call_id:
            if call_id in ids:
                raise PartRefused(f"{where}[{number}].id", f"{call_id!r} is the id of two calls")
            ids.add(call_id)
            own = {"id": call_id} | own
        made.append(own | {"function": {"name": function["name"], "arguments": arguments}})
    return made


def _in_order(
    results: Sequence[Message], calls: Sequence[Mapping[str, Any]], start: int
) -> list[Message]:
    """Return the results behind a message in the order of its calls, with their names.

    Args:
        results: messages of the role `tool`.
        calls: of the message before them.
        start: the number of the first result.
    """
    order = {call["id"]: index for index, call in enumerate(calls) if "id" in call}
    found: list[tuple[int, Message]] = []
    for number, result in enumerate(results):
        index = order.get(result["tool_call_id"], -1) if "tool_call_id" in result else number
        where = f"messages[{start + number}]"
        if not 0 <= index < len(calls):
            raise _no_call(result, where)
        name = calls[index]["function"]["name"]
        if result.setdefault("name", name) != name:
            reason = f"{result['name']!r} is not {name!r}, the function that was called"
            raise PartRefused(f"{where}.name", reason)
        found.append((index, result))
    return [result for _, result in sorted(found, key=lambda each: each[0])]


def _no_call(result: Message, where: str) -> PartRefused:
    where = f"{where}.tool_call_id"
    if "tool_call_id" not in result:
        return PartRefused(where, "missing, and there is no call whose result this may be")
    shown = result["tool_call_id"]
    return PartRefused(where, f"{shown!r} is the id of no call in the message before the results")

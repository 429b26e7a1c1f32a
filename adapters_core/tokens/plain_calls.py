"""Calls of functions for bases whose chat templates know none: told in plain words.

The tools stand in the system message (`instructions`), calls in the assistant's content as Hermes'
and Qwen's templates write them, results in a user's message.
"""

import json
from collections.abc import Sequence
from itertools import groupby

from adapters_core.calls.form import CallForm
from adapters_core.tokens.messages import Message, Tool
from adapters_core.tokens.template_facts import calls_of

PLAIN_FORM = CallForm(
    before='<tool_call>\n{"name": "',
    middle='", "arguments": ',
    after="}\n</tool_call>",
    between='}\n</tool_call>\n<tool_call>\n{"name": "',
    gap="\n",
)
_HEAD = "You can call functions. They are, one JSON object a line:"
_TAIL = """\
To call one, answer with its name and its arguments as a JSON object between these tags, once for \
each call:
<tool_call>
{"name": NAME, "arguments": ARGUMENTS}
</tool_call>
What it returns stands between <tool_response> and </tool_response>."""


def instructions(tools: Sequence[Tool]) -> str:
    """Return what a base is told of its tools."""
    lines = [json.dumps(tool["function"], ensure_ascii=False) for tool in tools]
    return "\n".join([_HEAD, *lines, _TAIL])


def in_plain_words(
    messages: Sequence[Message], tools: Sequence[Tool], takes_system: bool
) -> list[Message]:
    """Return a chat with its tools, calls and results as texts of the other roles.

    Args:
        messages: of the chat.
        tools: that there are.
        takes_system: whether the template has messages of the role `system`; else the tools stand
            before the first message's content.
    """
    made: list[Message] = []
    for is_result, group in groupby(messages, lambda each: each["role"] == "tool"):
        each = list(group)
        made += [_results(each)] if is_result else map(_without_calls, each)
    return _told(made, instructions(tools), takes_system) if tools else made


def _told(messages: list[Message], words: str, takes_system: bool) -> list[Message]:
    first = messages[0]
    if first["role"] != "system" and takes_system:
        return [{"role": "system", "content": words}, *messages]
    pair = (first["content"], words) if first["role"] == "system" else (words, first["content"])
    return [{**first, "content": "\n\n".join(filter(None, pair))}, *messages[1:]]


def _without_calls(message: Message) -> Message:
    calls = calls_of(message)
    if not calls:
        return message
    content, gap = message["content"], PLAIN_FORM.gap or ""
    text = PLAIN_FORM.write(calls)
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**kept, "content": f"{content}{gap}{text}" if content else text}


def _results(messages: Sequence[Message]) -> Message:
    texts = [f"<tool_response>\n{each['content']}\n</tool_response>" for each in messages]
    return {"role": "user", "content": "\n".join(texts)}

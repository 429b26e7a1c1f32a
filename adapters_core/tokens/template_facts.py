"""What a chat template does with tools, calls and names: found by what it writes of small chats.

A template is a program, and says nowhere what it reads. So it is given chats with words that it can
only have from them, and what it writes is searched for these words.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from adapters_core.calls.form import ID, NEXT_ID, Call, CallForm
from adapters_core.calls.reader import read_whole
from adapters_core.tokens.messages import Message, Tool
from adapters_core.tokens.prompts import ChatRefused, chat_text

#: Words that no template writes of its own; the first and last character begin and end no call.
_CONTENT, _RESULT, _PERSON = "\u2020overtone content\u2020", "overtone result", "overtone_person"
_NAMES = ("overtone_first", "overtone_second")
_ARGUMENTS = {"argument": "overtone value"}
#: Of nine letters and digits, as Mistral's templates want them.
_IDS = ("overtone1", "overtone2")
_USER: Message = {"role": "user", "content": "question"}
_SYSTEM: Message = {"role": "system", "content": "rule"}
#: Chats begin with a user's message, or a template demands a rule before it.
_BEGINNINGS: Sequence[list[Message]] = ([_USER], [_SYSTEM, _USER])
#: A token with which Llama 3 begins calls, though its template does not write it.
_PYTHON_TAG = "<|python_tag|>"
_TOOLS: list[Tool] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "of a test",
            "parameters": {"type": "object", "properties": {"argument": {"type": "string"}}},
        },
    }
    for name in _NAMES
]
_Render = Callable[[list[Message]], str]


@dataclass(frozen=True)
class TemplateFacts:
    """What a template does.

    Args:
        shows_tools: it writes the tools that there are.
        shows_results: it writes messages of the role `tool`.
        shows_content_beside_calls: of an answer with calls it writes the content, too.
        takes_any_ids: it takes ids of calls that are not nine letters and digits.
        takes_system: it writes messages of the role `system`.
        names: roles of which it writes the `name`.
        form: in which it writes calls; None: in none that can be read.
    """

    shows_tools: bool
    shows_results: bool
    shows_content_beside_calls: bool
    takes_any_ids: bool
    takes_system: bool
    names: frozenset[str]
    form: CallForm | None


def facts_of(tokenizer: Any) -> TemplateFacts:
    """Return what a base's chat template does; a few milliseconds.

    Args:
        tokenizer: the base's; it has a template.
    """
    with_tools = _with_tools(tokenizer)
    plain = _renderer(tokenizer, ())
    shown = with_tools([])
    return TemplateFacts(
        shows_tools=_NAMES[0] in shown,
        shows_results=_RESULT in with_tools([_calls(1), _result()]),
        shows_content_beside_calls=_CONTENT in with_tools([_calls(1, _CONTENT)]),
        takes_any_ids=bool(with_tools([_calls(1, call_id="call_of_overtone")])),
        takes_system="rule" in _tried(plain, [_SYSTEM, _USER]),
        names=frozenset(role for role in ("system", "user", "assistant") if _names(plain, role)),
        form=_form(with_tools, _also_opens(tokenizer)),
    )


def _renderer(tokenizer: Any, tools: Sequence[Tool]) -> _Render:
    return lambda messages: chat_text(tokenizer, messages, "ends", tools)


def _with_tools(tokenizer: Any) -> _Render:
    """Return what writes messages behind a question, with tools; empty where it is refused."""
    render = _renderer(tokenizer, _TOOLS)
    beginning = next((each for each in _BEGINNINGS if _tried(render, each)), [_USER])
    return lambda messages: _tried(render, [*beginning, *messages])


def _tried(render: _Render, messages: list[Message]) -> str:
    """Return what a template writes; empty if it refuses."""
    try:
        return render(messages)
    except ChatRefused:
        return ""


def _calls(count: int, content: str = "", call_id: str = "") -> Message:
    calls = [
        {
            "id": call_id or _IDS[i],
            "type": "function",
            "function": {"name": _NAMES[i], "arguments": _ARGUMENTS},
        }
        for i in range(count)
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def _result() -> Message:
    return {"role": "tool", "content": _RESULT, "tool_call_id": _IDS[0], "name": _NAMES[0]}


def _names(render: _Render, role: str) -> bool:
    """Return whether the name in a message of a role is written."""
    answer: Message = {"role": "assistant", "content": "answer"}
    chat = [_USER, answer, _USER] if role != "system" else [_SYSTEM, _USER]
    named = [{**each, "name": _PERSON} if each["role"] == role else each for each in chat]
    return _PERSON in _tried(render, named)


def _also_opens(tokenizer: Any) -> str:
    return _PYTHON_TAG if _PYTHON_TAG in tokenizer.get_added_vocab() else ""


def _form(render: _Render, also_opens: str) -> CallForm | None:
    """Return the form of calls that a template writes, if what is written is read back."""
    text = render([{"role": "assistant", "content": _CONTENT}])
    one, two = (_own(render([_calls(count)]), text) for count in (1, 2))
    pieces = _pieces(one, 1)
    if pieces is None:
        return None
    before, middle, after = pieces
    several = _pieces(two, 2)
    between = several[-2] if several and several[0] == before and several[-1] == after else None
    gap = _between(render([_calls(1, _CONTENT)]), _CONTENT, one)
    form = CallForm(before, middle, after, between, gap, also_opens)
    is_read = form.is_readable and read_whole(form, _NAMES, one) == ("", [_call()])
    return form if is_read else None


def _call() -> Call:
    return Call(_NAMES[0], json.dumps(_ARGUMENTS))


def _own(text: str, other: str) -> str:
    """Return what a text has that another one does not: without a common beginning and end."""
    start = len(commonprefix([text, other]))
    end = len(commonprefix([text[start:][::-1], other[start:][::-1]]))
    return text[start : len(text) - end]


def _between(text: str, one: str, other: str) -> str | None:
    """Return what stands between two parts of a text; None if they do not follow each other."""
    _, found, rest = text.partition(one)
    gap, follows, _ = rest.partition(other)
    return gap if found and follows else None


def _pieces(text: str, count: int) -> list[str] | None:
    """Return what stands around the names and arguments of calls; None if they are not there.

    Of two calls: before the first name, between name and arguments, between the calls, at the end.
    """
    found: list[str] = []
    at = 0
    for number in range(count):
        name = text.find(_NAMES[number], at)
        behind = name + len(_NAMES[number])
        start = _arguments_at(text, behind)
        if name < 0 or start is None:
            return None
        found += [
            _with_slots(text[at:name], number),
            _with_slots(text[behind : start[0]], number + 1),
        ]
        at = start[1]
    found.append(_with_slots(text[at:], count))
    return found if count == 1 else [found[0], found[1], found[2], found[4]]


def _arguments_at(text: str, at: int) -> tuple[int, int] | None:
    """Return where arguments begin and end behind a name."""
    decoder = json.JSONDecoder()
    while (at := text.find("{", at)) >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            value, end = None, at
        if value == _ARGUMENTS:
            return at, end
        at += 1
    return None


def _with_slots(text: str, num_named: int) -> str:
    """Return a text with slots in place of ids.

    Args:
        text: between names and arguments.
        num_named: calls whose names stand before it.
    """
    for number, each in enumerate(_IDS):
        text = text.replace(each, ID if number < num_named else NEXT_ID)
    return text


def calls_of(message: Message) -> list[Call]:
    """Return a message's calls as a form writes them."""
    return [
        Call(
            call["function"]["name"],
            json.dumps(call["function"]["arguments"], ensure_ascii=False),
            call.get("id", ""),
        )
        for call in message.get("tool_calls", ())
    ]

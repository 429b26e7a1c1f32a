"""An assistant's message as the text that a base generates for it, and back."""

import json
from collections.abc import Sequence

from adapters_core.calls.form import Call
from adapters_core.calls.reader import read_whole
from adapters_core.tokens.chats import ChatTemplate
from adapters_core.tokens.messages import Message, Tool
from adapters_core.tokens.template_facts import calls_of


class NoSuchAnswer(ValueError):
    """The base cannot be made to give a message; the message follows upon "the answer"."""


def answer_text(template: ChatTemplate, message: Message) -> str:
    """Return what a base is to generate for a message.

    Blanks at the end of a content before calls belong to the form of the calls.

    Raises:
        NoSuchAnswer: it has calls that the base does not write.
    """
    content: str = message["content"]
    calls = calls_of(message)
    if not calls:
        return content
    try:
        form = template.form
        text = form.write(calls)
    except ValueError as error:
        raise NoSuchAnswer(f"has calls, but {error}") from error
    if not content:
        return text
    if form.gap is None:
        raise NoSuchAnswer("has content and calls, and the base's chat template writes one of them")
    return f"{content.rstrip()}{form.gap}{text}"


def check_answer(
    template: ChatTemplate,
    message: Message,
    text: str,
    tools: Sequence[Tool],
    max_calls: int | None = None,
) -> None:
    """Check that a text is read as the message that it was made of.

    Args:
        template: of the base.
        message: from the assistant.
        text: what a caller would be sent without tools.
        tools: of the chat.
        max_calls: how many calls an answer may have.

    Raises:
        NoSuchAnswer: it is read as another one.
    """
    try:
        form = template.form
    except ValueError as error:
        raise NoSuchAnswer(f"has tools beside it, but {error}") from error
    names = [tool["function"]["name"] for tool in tools]
    content, calls = read_whole(form, names, text, max_calls)
    given = calls_of(message)
    if list(map(_values, calls)) != list(map(_values, given)):
        raise NoSuchAnswer(f"has {len(given)} calls, but its text is read as {_shown(calls)}")
    wanted: str = message["content"]
    if content != (wanted.rstrip() if given else text):
        raise NoSuchAnswer(f"has a content that is read as {content[:40]!r}")


def _values(call: Call) -> tuple[str, object]:
    return call.name, json.loads(call.arguments)


def _shown(calls: Sequence[Call]) -> str:
    return ", ".join(call.name for call in calls) or "none"

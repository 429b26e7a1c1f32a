"""Prompts and chats as tokens: what the server's routes and training make of the same words.

A text gets the special tokens that the base's tokenizer adds. A chat goes through the base's chat
template, which writes its special tokens itself. Roles that a template knows are few: `developer`
is `system`, and parts of a content are one text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Roles of messages that are served, and what templates call them.
ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
#: A message as templates read it: `role` and `content`.
Message = dict[str, str]


class ChatRefused(ValueError):
    """The base has no chat template, or its template refuses these messages."""


@dataclass(frozen=True)
class Prompt:
    """What an answer is to follow.

    Args:
        text: as the tokenizer got it.
        ids: its tokens, the special ones included; may be empty.
    """

    text: str
    ids: Sequence[int]


def message(role: str, content: str | Iterable[str]) -> Message:
    """Return a message as templates read it.

    Args:
        role: one of `ROLES`.
        content: a text, or the texts of its parts.
    """
    return {"role": ROLES[role], "content": "".join(content)}


def prompt_of(tokenizer: Any, text: str) -> Prompt:
    """Return the tokens of a prompt that is a text."""
    return Prompt(text, list(tokenizer(text, verbose=False)["input_ids"]))


def chat_of(tokenizer: Any, messages: Sequence[Message]) -> Prompt:
    """Return the tokens of a chat that the base is to answer.

    Raises:
        ChatRefused: the base has no chat template, or it refuses these messages.
    """
    text = chat_text(tokenizer, messages, asks=True)
    return Prompt(text, plain_ids(tokenizer, text))


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text without those that the tokenizer adds around it."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def chat_text(tokenizer: Any, messages: Sequence[Message], asks: bool) -> str:
    """Return a chat as the base's template writes it.

    Args:
        tokenizer: the base's.
        messages: of the chat.
        asks: whether an answer is to follow.

    Raises:
        ChatRefused: as `chat_of`.
    """
    if not tokenizer.chat_template:
        raise ChatRefused("the base has no chat template")
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=asks
            )
        )
    except Exception as error:  # a template is a program: it may raise anything
        raise ChatRefused(f"the base's chat template refuses the messages: {error}") from error

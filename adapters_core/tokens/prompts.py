"""Prompts and chats as tokens: what the server's routes and training make of the same words.

A text gets the special tokens that the base's tokenizer adds. A chat goes through the base's chat
template (chats.py), which writes its special tokens itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adapters_core.tokens.messages import Message, Tool

#: How a chat's text ends: an answer is to follow, its last message goes on, or it is over.
Ending = Literal["asks", "continues", "ends"]


class ChatRefused(ValueError):
    """The base has no chat template, or its template does not take this chat.

    Args:
        message: in words.
        where: the part of the chat that is meant, such as `messages[2].name`; empty for all of it.
    """

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where


@dataclass(frozen=True)
class Prompt:
    """What an answer is to follow.

    Args:
        text: as the tokenizer got it.
        ids: its tokens, the special ones included; may be empty.
    """

    text: str
    ids: Sequence[int]


def prompt_of(tokenizer: Any, text: str) -> Prompt:
    """Return the tokens of a prompt that is a text."""
    return Prompt(text, list(tokenizer(text, verbose=False)["input_ids"]))


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text without those that the tokenizer adds around it."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def chat_text(
    tokenizer: Any,
    messages: Sequence[Message],
    ending: Ending = "asks",
    tools: Sequence[Tool] = (),
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Return a chat as the base's template writes it.

    Args:
        tokenizer: the base's.
        messages: of the chat.
        ending: how the text ends.
        tools: that the base may call.
        variables: of the template.

    Raises:
        ChatRefused: the base has no chat template, or it refuses these messages.
    """
    if not tokenizer.chat_template:
        raise ChatRefused("the base has no chat template")
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=ending == "asks",
                continue_final_message=ending == "continues",
                **(variables or {}),
            )
        )
    except Exception as error:  # a template is a program: it may raise anything
        raise ChatRefused(f"the base's chat template refuses the messages: {error}") from error

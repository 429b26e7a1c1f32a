"""Chats as a base's template writes them, with tools: in serving and in training.

A template that writes tools, calls and results gets them as they are. One that ignores tools is
told of them in plain words (plain_calls.py). One that has tools, but writes calls in a form that
cannot be read back, gets none. What a template would drop silently is refused by name.
"""

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from adapters_core.calls.form import SHORT_ID, CallForm
from adapters_core.tokens.messages import Message, Tool
from adapters_core.tokens.plain_calls import PLAIN_FORM, in_plain_words
from adapters_core.tokens.prompts import ChatRefused, Ending, Prompt, chat_text, plain_ids
from adapters_core.tokens.template_facts import TemplateFacts, facts_of


@dataclass(frozen=True)
class Chat:
    """A chat.

    Args:
        messages: as templates read them (messages.py).
        tools: that the base may call.
        ending: how its text ends.
        variables: of the template, for this chat.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    ending: Ending = "asks"
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_calls(self) -> bool:
        """Return whether it has tools, calls or results."""
        messages = self.messages
        return bool(self.tools) or any(
            each["role"] == "tool" or "tool_calls" in each for each in messages
        )


class ChatTemplate:
    """A base's chat template.

    Args:
        tokenizer: the base's, which may have none.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def prompt(self, chat: Chat) -> Prompt:
        """Return the tokens of a chat.

        Raises:
            ChatRefused: the base has no template, or it does not take the chat.
        """
        text = self.text(chat)
        return Prompt(text, plain_ids(self._tokenizer, text))

    def text(self, chat: Chat) -> str:
        """Return a chat's text.

        Raises:
            ChatRefused: as `prompt`.
        """
        if not self._tokenizer.chat_template:
            raise ChatRefused("the base has no chat template")
        self._check_variables(chat)
        self._check_names(chat.messages)
        if not chat.has_calls:
            return self._written(chat)
        if self._is_in_plain_words:
            takes_system = self._facts.takes_system
            messages = in_plain_words(chat.messages, chat.tools, takes_system)
            return self._written(replace(chat, messages=messages, tools=()))
        self._check_calls()
        messages = self._apart(chat.messages)
        if not self._facts.takes_any_ids:
            messages = list(map(_with_short_ids, messages))
        return self._written(replace(chat, messages=messages))

    @property
    def form(self) -> CallForm:
        """Return the form in which the base writes calls.

        Raises:
            ChatRefused: in none that can be read.
        """
        if self._is_in_plain_words:
            return PLAIN_FORM
        self._check_calls()
        assert self._facts.form is not None
        return self._facts.form

    @cached_property
    def call_tokens(self) -> Mapping[str, int]:
        """Return the special tokens with which the base writes calls, by their texts."""
        try:
            form = self.form
        except ChatRefused:
            return {}
        texts = (form.before, form.middle, form.after, form.between or "", form.also_opens)
        added = self._tokenizer.added_tokens_decoder
        return {
            token.content: number
            for number, token in added.items()
            if token.special and any(token.content in text for text in texts)
        }

    def _written(self, chat: Chat) -> str:
        return chat_text(
            self._tokenizer, chat.messages, chat.ending, chat.tools, self._variables(chat)
        )

    def _variables(self, chat: Chat) -> Mapping[str, Any]:
        """Return a chat's variables; of several templates the one for tools writes calls."""
        templates = self._tokenizer.chat_template
        if isinstance(templates, dict) and "tool_use" in templates and chat.has_calls:
            return {**chat.variables, "chat_template": "tool_use"}
        return chat.variables

    @cached_property
    def _facts(self) -> TemplateFacts:
        if not self._tokenizer.chat_template:
            raise ChatRefused("the base has no chat template")
        return facts_of(self._tokenizer)

    @property
    def _is_in_plain_words(self) -> bool:
        return not self._facts.shows_tools

    def _check_calls(self) -> None:
        """Refuse tools that a template has in a way of its own."""
        if self._facts.form is None or not self._facts.shows_results:
            what = "calls of functions" if self._facts.form is None else "results of functions"
            raise ChatRefused(
                f"the base's chat template has tools, but writes {what} in no form that is known"
            )

    def _check_names(self, messages: Sequence[Message]) -> None:
        for number, each in enumerate(messages):
            if "name" in each and each["role"] != "tool" and each["role"] not in self._facts.names:
                raise ChatRefused(
                    f"the base's chat template does not write the `name` of a message of the role "
                    f"{each['role']!r}: remove it, or write it into the content",
                    f"messages[{number}].name",
                )

    def _check_variables(self, chat: Chat) -> None:
        """Refuse variables that the template does not read, and ones that are not its own."""
        for name in chat.variables:
            where = f"chat_template_kwargs.{name}"
            if name in self._taken:
                raise ChatRefused(f"{name!r} cannot be set as a variable of the template", where)
            if not re.search(rf"\b{re.escape(name)}\b", self._source(chat)):
                raise ChatRefused(f"the base's chat template does not read {name!r}", where)

    @cached_property
    def _taken(self) -> frozenset[str]:
        """Return the names that mean something else than a variable of a template."""
        arguments = inspect.signature(self._tokenizer.apply_chat_template).parameters
        return frozenset(arguments) | {"messages"} | frozenset(self._tokenizer.special_tokens_map)

    def _source(self, chat: Chat) -> str:
        tools = list(chat.tools) or None
        return str(self._tokenizer.get_chat_template(None, tools))

    def _apart(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages in which content and calls stand apart if the template drops content."""
        if self._facts.shows_content_beside_calls:
            return list(messages)
        made: list[Message] = []
        for each in messages:
            if each.get("tool_calls") and each["content"]:
                made.append({k: v for k, v in each.items() if k != "tool_calls"})
                each = {**each, "content": ""}
            made.append(each)
        return made


def _with_short_ids(message: Message) -> Message:
    """Return a message with ids of nine letters and digits, equal where they were equal."""
    made = dict(message)
    if "tool_call_id" in message:
        made["tool_call_id"] = _short(message["tool_call_id"])
    if "tool_calls" in message:
        made["tool_calls"] = [
            {**call, "id": _short(call.get("id", ""))} for call in message["tool_calls"]
        ]
    return made


def _short(call_id: str) -> str:
    if re.fullmatch(SHORT_ID, call_id):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]

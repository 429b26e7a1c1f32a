"""The form in which a base writes calls of functions in an answer.

Two calls in one answer are

    before NAME middle ARGUMENTS between NAME middle ARGUMENTS after

with texts that were seen in what the base's chat template writes (tokens/probe.py). Where a call is
a JSON object, its members and its surroundings follow from them:

| base | one call |
| -- | -- |
| Hermes, Qwen | `<tool_call>` `{"name": NAME, "arguments": ARGUMENTS}` `</tool_call>` |
| Llama 3 | `{"name": NAME, "parameters": ARGUMENTS}` |
| Mistral | `[TOOL_CALLS] [{"name": NAME, "arguments": ARGUMENTS, "id": ID}]` |
| newer Mistral | `[TOOL_CALLS]NAME[ARGS]ARGUMENTS` |
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from adapters_core.calls.json_text import Malformed, ObjectScan, members

#: Stands in a form's texts for the id of the call whose arguments follow or have just ended …
ID = "\x00"
#: … and for that of the call whose name follows.
NEXT_ID = "\x01"
#: What an id is made of that every chat template takes: Mistral's take no others.
SHORT_ID = "[a-zA-Z0-9]{9}"
#: object: each call is a JSON object. list: all are one JSON list. named: a name, then arguments.
Container = Literal["object", "list", "named"]
_NAME, _ARGUMENTS = "function_name", '{"argument": 0}'


@dataclass(frozen=True)
class Call:
    """A call of a function.

    Args:
        name: of the function.
        arguments: a JSON object as text.
        id: which a result refers to; empty where the base wrote none.
    """

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True)
class CallForm:
    """How a base writes calls.

    Args:
        before: what stands before the first function's name.
        middle: between a name and its arguments.
        after: behind the last arguments.
        between: from one call's arguments to the next one's name; None: an answer has one call.
        gap: between content and calls; None: an answer with calls has no content.
        also_opens: a token with which the base may begin calls beside the form's own beginning.
    """

    before: str
    middle: str
    after: str
    between: str | None = None
    gap: str | None = None
    also_opens: str = ""

    def write(self, calls: Sequence[Call]) -> str:
        """Return the text of an answer that is these calls, at least one.

        Raises:
            ValueError: there are several, and the form has one.
        """
        if len(calls) > 1 and self.between is None:
            raise ValueError("the base writes one call an answer")
        text = _filled(self.before, "", calls[0].id)
        for number, call in enumerate(calls):
            is_last = number == len(calls) - 1
            following = self.after if is_last else self.between or ""
            next_id = "" if is_last else calls[number + 1].id
            text += call.name + _filled(self.middle, call.id, "") + call.arguments
            text += _filled(following, call.id, next_id)
        return text

    @cached_property
    def opening(self) -> str:
        """Return what begins calls, without the blanks around it; empty if nothing does."""
        start = self._json_start
        return (self.before if start is None else self.before[:start]).strip()

    @cached_property
    def closing(self) -> str:
        """Return what may follow a JSON object, or the list of all, without blanks around it."""
        start = self._json_start
        if start is None:
            return ""
        return self._sample[start + _json_length(self._sample[start:]) :].strip()

    @cached_property
    def container(self) -> Container:
        """Return what the calls are."""
        start = self._json_start
        if start is None:
            return "named"
        return "object" if self._sample[start] == "{" else "list"

    @cached_property
    def name_key(self) -> str:
        """Return the member that holds a function's name."""
        return next(key for key, value in self._members.items() if value == _NAME)

    @cached_property
    def arguments_key(self) -> str:
        """Return the member that holds arguments."""
        return next(key for key, value in self._members.items() if value == json.loads(_ARGUMENTS))

    @property
    def is_readable(self) -> bool:
        """Return whether calls of this form can be found in a text."""
        if self.container == "named":
            return bool(self.opening)
        values = list(self._members.values())
        return _NAME in values and json.loads(_ARGUMENTS) in values

    @cached_property
    def _sample(self) -> str:
        """Return one call without an id."""
        sample = self.before + _NAME + self.middle + _ARGUMENTS + self.after
        return _filled(sample, "0", "0")  # as long as the placeholders

    @cached_property
    def _json_start(self) -> int | None:
        """Return where the sample's JSON begins: the object or list around name and arguments."""
        for start, char in enumerate(self.before):
            if char in "{[" and _json_length(self._sample[start:]) > len(self.before) - start:
                return start
        return None

    @cached_property
    def _members(self) -> Mapping[str, Any]:
        """Return the sample's members."""
        start = self._sample.index("{", self._json_start or 0)
        try:
            return {key: each.value for key, each in members(self._sample, start).items()}
        except ValueError:
            return {}


def _json_length(text: str) -> int:
    """Return how long the JSON is with which a text begins; 0 if it is none."""
    try:
        return ObjectScan().push(text) or 0
    except Malformed:
        return 0


def _filled(text: str, own: str, following: str) -> str:
    return text.replace(ID, own).replace(NEXT_ID, following)

"""One call in a text: a JSON object with a name and arguments, or a name and a JSON object."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from adapters_core.calls.form import ID, Call, CallForm
from adapters_core.calls.json_text import Member, members
from adapters_core.strict_json import UnclearJson, strict_json

#: Members of a call beside its name, in whatever form; bases take one for the other.
_ARGUMENTS = ("arguments", "parameters")
_OTHERS = ("id", "type")
_FIRST_KEY = re.compile(r'\{\s*"([^"]*)"')
#: What names of functions are made of.
NAME = r"[\w.:/-]+"


@dataclass(frozen=True)
class Head:
    """The beginning of a call, up to its arguments.

    Args:
        name: of the function.
        id: that stands before the arguments; mostly empty.
        size: characters up to the arguments' brace.
    """

    name: str
    id: str
    size: int


class Items:
    """Recognises calls of one form.

    Args:
        form: of the calls.
        names: of the functions that there are.
    """

    def __init__(self, form: CallForm, names: Collection[str]) -> None:
        self._names = names
        self._is_bare = not form.opening
        self.may_be_named = form.container == "named"
        keys = ("name", "arguments") if self.may_be_named else (form.name_key, form.arguments_key)
        self._name_key, self._argument_keys = keys[0], dict.fromkeys((keys[1], *_ARGUMENTS))
        self._middle = form.middle

    def head(self, text: str, start: int) -> Head | None:
        """Return the beginning of a call at `start`, once its arguments begin.

        Raises:
            ValueError: it is that of no call.
        """
        is_object = text.startswith("{", start)
        match = (self._object_head if is_object else self._named_head).match(text, start)
        if match is None:
            if is_object and self._is_bare:
                self._check_first_key(text, start)
            return None
        if match["name"] not in self._names:
            raise ValueError("another function")
        ids = match.groupdict()
        return Head(match["name"], ids.get("id") or "", match.end() - start)

    def call(self, text: str) -> Call:
        """Return the call that a whole JSON object is.

        Raises:
            ValueError: it is none.
        """
        found = members(text)
        name = found.get(self._name_key)
        if name is None or name.value not in self._names:
            raise ValueError("no function")
        own = found.get("id")
        call_id = own.value if own is not None and isinstance(own.value, str) else ""
        return Call(name.value, self._arguments(found), call_id)

    def _arguments(self, found: Mapping[str, Member]) -> str:
        given = next((found[key] for key in self._argument_keys if key in found), None)
        if given is None or given.value is None:
            return "{}"
        if isinstance(given.value, dict):
            return given.text
        if isinstance(given.value, str):  # JSON as a text, as OpenAI's API has it
            as_object(given.value)
            return given.value.strip()
        raise ValueError("no arguments")

    def _check_first_key(self, text: str, start: int) -> None:
        match = _FIRST_KEY.match(text, start)
        if match and match[1] not in (self._name_key, *self._argument_keys, *_OTHERS):
            raise ValueError("no call")

    @cached_property
    def _object_head(self) -> re.Pattern[str]:
        keys = "|".join(map(re.escape, self._argument_keys))
        name = re.escape(self._name_key)
        return re.compile(
            rf'\{{\s*"{name}"\s*:\s*"(?P<name>[^"\\]*)"\s*,\s*"(?:{keys})"\s*:\s*(?=\{{)'
        )

    @cached_property
    def _named_head(self) -> re.Pattern[str]:
        """Return a name, what stands behind it, and a brace; bases leave the middle out."""
        parts = [re.escape(part.strip()) for part in self._middle.split(ID)]
        middle = r"\s*(?P<id>\w*)\s*".join(parts)
        return re.compile(rf"(?P<name>{NAME})\s*(?:{middle})?\s*(?=\{{)")


def as_object(arguments: str) -> dict[str, Any]:
    """Return a call's arguments as templates read them.

    Raises:
        UnclearJson: they are no JSON object that all programs read alike, or nested too deeply.
    """
    found = strict_json(arguments)
    if not isinstance(found, dict):
        raise UnclearJson("is no JSON object")
    return found

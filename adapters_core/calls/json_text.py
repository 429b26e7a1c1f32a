"""JSON that arrives in pieces: where an object ends, and where its members stand."""

import json
import re
from dataclasses import dataclass
from typing import Any

#: What stands in JSON between strings and brackets: blanks, numbers, true, false and null.
_BETWEEN = re.compile(r"[ \t\r\n\d+\-.eE:,truefalsn]*")
_STRING = re.compile(r'[^"\\\x00-\x1f]*')
_STRING_WITH_CONTROLS = re.compile(r'[^"\\]*')
_ESCAPES = '"\\/bfnrtu'
_CLOSES = {"{": "}", "[": "]"}
_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Malformed(ValueError):
    """This is no JSON.

    Args:
        at: index of the character that does not fit.
    """

    def __init__(self, at: int) -> None:
        super().__init__(f"no JSON from character {at} on")
        self.at = at


class ObjectScan:
    """Finds the end of a JSON object, piece by piece; brackets, strings and stray letters only.

    Args:
        opened: brackets that stand open before the first piece.
        is_strict: whether control characters in strings are malformed, as JSON has it.
    """

    def __init__(self, opened: str = "", is_strict: bool = True) -> None:
        self._open = list(opened)
        self._in_string = False
        self._is_escaped = False
        self._string = _STRING if is_strict else _STRING_WITH_CONTROLS

    def push(self, text: str, start: int = 0) -> int | None:
        """Read `text` from `start` on; return the index behind the object's end, if it is there.

        Raises:
            Malformed: whatever follows, it will be no JSON.
        """
        at = start
        while at < len(text):
            if self._in_string:
                at = self._read_string(text, at)
                continue
            at = _matched(_BETWEEN, text, at)
            if at == len(text):
                return None
            self._read_bracket(text, at)
            at += 1
            if not self._open:
                return at
        return None

    def _read_string(self, text: str, at: int) -> int:
        if self._is_escaped:
            if text[at] not in _ESCAPES:
                raise Malformed(at)
            self._is_escaped = False
            return at + 1
        at = _matched(self._string, text, at)
        if at == len(text):
            return at
        if text[at] not in '"\\':
            raise Malformed(at)
        self._is_escaped = text[at] == "\\"
        self._in_string = self._is_escaped
        return at + 1

    def _read_bracket(self, text: str, at: int) -> None:
        char = text[at]
        if char == '"':
            self._in_string = True
        elif char in _CLOSES:
            self._open.append(char)
        elif not self._open or _CLOSES[self._open.pop()] != char:
            raise Malformed(at)


@dataclass(frozen=True)
class Member:
    """A member of a JSON object: its value, and the value as it was written."""

    value: Any
    text: str


def members(text: str, start: int = 0) -> dict[str, Member]:
    """Return the members of the JSON object at `start`; of two of one name the last.

    Raises:
        ValueError: it is no JSON object.
    """
    found: dict[str, Member] = {}
    at = _expected(text, start, "{")
    if text[at : at + 1] == "}":
        return found
    while True:
        name, at = _decoded(text, at)
        if not isinstance(name, str):
            raise Malformed(at)
        begin = _expected(text, _matched(_BLANK, text, at), ":")
        value, end = _decoded(text, begin)
        found[name] = Member(value, text[begin:end])
        at = _matched(_BLANK, text, end)
        if text[at : at + 1] == "}":
            return found
        at = _expected(text, at, ",")


def _decoded(text: str, at: int) -> tuple[Any, int]:
    """Return the value that begins at `at`, and where it ends.

    Raises:
        ValueError: it is none; NaN and Infinity are none.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError as error:
        raise Malformed(at) from error
    if re.search(r"NaN|Infinity", text[at:end]):
        json.loads(text[at:end], parse_constant=_refuse)
    return value, end


def _refuse(name: str) -> None:
    raise Malformed(0)


def _expected(text: str, at: int, char: str) -> int:
    """Return the index of what follows `char` and blanks."""
    if text[at : at + 1] != char:
        raise Malformed(at)
    return _matched(_BLANK, text, at + 1)


def _matched(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return the index behind what matches at `at`; the pattern matches the empty text, too."""
    match = pattern.match(text, at)
    return match.end() if match else at

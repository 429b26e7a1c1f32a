"""JSON that callers and files bring: one reading, bounded in depth, or refused.

Python's parser takes what other programs read otherwise or not at all: a key that stands twice (the
last one counts), NaN, half of a character. And it is recursive, as is most of what is done to a
value afterwards, so depth is bounded before anything is parsed.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any, NoReturn

#: Objects and lists within each other; enough for a JSON schema of thirty levels.
MAX_DEPTH = 64

#: A string, closed or not, so that one which never ends is passed over once.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKET = re.compile(r"[^\[\]{}]+")
_SHOWN_CHARS = 40
#: Of a list of whole numbers that is read in pieces, and of each piece.
_MANY_CHARS = 1 << 17
_NUMBERS = re.compile(rf"\[[0-9,\t\n\r ]{{{_MANY_CHARS},}}\]")
_STANDS_FOR_LIST = "-Infinity"
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


class UnclearJson(ValueError):
    """What is wrong with a text; the message follows upon "the body ".

    Args:
        message: begins with a verb.
        key: the key that stands twice, if that is the fault.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


def strict_json(text: str | bytes, max_depth: int = MAX_DEPTH, checks_values: bool = True) -> Any:
    """Return the value of a JSON text that all programs read alike.

    Args:
        text: bytes are UTF-8.
        max_depth: objects and lists within each other.
        checks_values: refuse NaN, infinities and halves of characters. A caller whose errors name
            fields leaves them to checks of its own (`check_values`).

    Raises:
        UnclearJson: it is none; the message says why.
    """
    text = _decoded(text) if isinstance(text, bytes) else text
    if _is_deeper(text, max_depth):
        raise UnclearJson(f"is nested too deeply: more than {max_depth} levels")
    hooks: dict[str, Any] = {"object_pairs_hook": _object}
    if checks_values:
        hooks |= {"parse_constant": _no_number, "parse_float": _finite}
    try:
        value = _loaded(text, hooks)
    except UnclearJson:
        raise
    except json.JSONDecodeError as error:
        raise UnclearJson(f"is not JSON: {error.msg} at character {error.pos + 1}") from error
    except ValueError as error:
        raise UnclearJson("has a number of too many digits") from error
    has_escapes = checks_values and "\\" in text  # found faster than those of surrogates
    if has_escapes and ("\\ud" in text or "\\uD" in text):
        check_values(value)
    return value


def check_values(value: Any) -> None:
    """Refuse numbers that JSON does not have, and lone surrogates, which UTF-8 cannot encode.

    Raises:
        UnclearJson: there is one; the message has it.
    """
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise UnclearJson(f"has half of a character, {half}, without its other half") from error
    except ValueError as error:
        raise UnclearJson("has NaN or an infinity, which are no numbers of JSON") from error


def nests_deeper(value: Any, max_depth: int) -> bool:
    """Return whether lists and objects of a value lie deeper within each other than `max_depth`."""
    level = [value]
    for _ in range(max_depth):
        level = [inner for each in level for inner in _inside(each)]
    return any(isinstance(each, dict | list | tuple) for each in level)


def _loaded(text: str, hooks: Mapping[str, Any]) -> Any:
    """Return the value of a JSON text; other threads run meanwhile.

    The parser keeps them waiting to its end, which takes milliseconds for every hundred thousand
    numbers. So long lists of whole numbers are read apart, in pieces, and stand as a constant that
    is no JSON in what the parser gets.
    """
    if len(text) < _MANY_CHARS or _STANDS_FOR_LIST in text or not _NUMBERS.search(text):
        return json.loads(text, **hooks)
    try:
        lists = [_whole_numbers(found[0]) for found in _NUMBERS.finditer(text)]
        constant = hooks.get("parse_constant", float)
        waiting = iter(lists)
        own = {"parse_constant": lambda n: next(waiting) if n == _STANDS_FOR_LIST else constant(n)}
        value = json.loads(_NUMBERS.sub(_STANDS_FOR_LIST, text), **{**hooks, **own})
        if next(waiting, None) is None:
            return value
    except ValueError:
        pass  # the parser itself says where the fault is
    return json.loads(text, **hooks)  # or a text within the text had such a list


def _whole_numbers(text: str) -> list[int]:
    """Return a list of whole numbers, piece by piece."""
    numbers: list[int] = []
    start, end = 1, len(text) - 1
    while start < end:
        stop = text.find(",", start + _MANY_CHARS, end)
        stop = end if stop < 0 else stop
        piece = json.loads(f"[{text[start:stop]}]")
        if not piece:
            raise ValueError("no number between two commas")
        numbers += piece
        start = stop + 1
        if start == end:
            raise ValueError("no number behind the last comma")
    return numbers


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UnclearJson(f"is not UTF-8 (byte {error.start + 1})") from error


def _is_deeper(text: str, max_depth: int) -> bool:
    if text.count("[") + text.count("{") <= max_depth:
        return False
    brackets = _NO_BRACKET.sub("", _STRING.sub("", text))
    return any(depth > max_depth for depth in accumulate(map(_STEPS.__getitem__, brackets)))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        count = Counter(name for name, _ in pairs)
        twice = next(name for name, times in count.items() if times > 1)
        shown = twice if len(twice) <= _SHOWN_CHARS else twice[:_SHOWN_CHARS] + "…"
        raise UnclearJson(f"has the key `{shown}` twice in one object; keep one", shown)
    return made


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise UnclearJson(f"has the number {digits[:_SHOWN_CHARS]}, which is beyond all doubles")
    return value


def _no_number(name: str) -> NoReturn:
    raise UnclearJson(f"has {name}, which is no number of JSON")

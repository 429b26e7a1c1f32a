"""One translation of pydantic's validation errors: the whole path of a field, and one message.

Where a field may be of several types (a union), pydantic lists the faults of every branch. The
branch that the caller meant is taken to be the one in which the types fit best, then the one that
was read the furthest.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from server.errors import InvalidRequest, UnsupportedParameter

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]

_MAX_SHOWN = 80
_UNSUPPORTED = "unsupported_parameter"
_WRONG = "wrong_field"
_EXPECTED = "Input should be "
#: Types of faults; pydantic's message names a class of this program.
_WORDS = {
    "model_type": "a valid object",
    "model_attributes_type": "a valid object",
    "dict_type": "a valid object",
}


def checked(model: type[M], given: Any) -> M:
    """Return a parsed JSON body as `model`.

    Raises:
        InvalidRequest: a field is missing or wrong; `param` is its whole path.
        UnsupportedParameter: an unknown field.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _translated(error.errors(include_url=False), given) from error


def invalid_parameter(error: RequestValidationError) -> InvalidRequest:
    """Return the framework's error about a query or path parameter as ours."""
    faults = [dict(fault, loc=fault["loc"][1:]) for fault in error.errors()]
    names = {fault["loc"][0]: fault.get("input") for fault in faults if fault["loc"]}
    return _translated(faults, names)


def unsupported(field: str, message: str) -> PydanticCustomError:
    """Return what a model's validator raises for a field of its own that is not supported."""
    return PydanticCustomError(_UNSUPPORTED, "{message}", {"message": message, "field": field})


def wrong(field: str, message: str) -> PydanticCustomError:
    """Return what a model's validator raises for a field of its own that is wrong beside others."""
    return PydanticCustomError(_WRONG, "{message}", {"message": message, "field": field})


@dataclass(frozen=True)
class _Fault:
    """One fault, as far as a branch of a union was read.

    Args:
        path: of the field, without pydantic's names of branches.
        fits: the value's type was right, but something about the value is not.
        kind: pydantic's name of the fault.
        message: what is expected.
        value: what was given.
    """

    path: Path
    fits: bool
    kind: str
    message: str
    value: Any

    @property
    def progress(self) -> tuple[bool, tuple[int, ...], int]:
        """Return what grows with how well a branch fits."""
        return self.fits, tuple(p for p in self.path if isinstance(p, int)), len(self.path)

    def error(self) -> InvalidRequest:
        path = shown_path(self.path)
        if self.kind == _UNSUPPORTED:
            return UnsupportedParameter(self.message, path)
        if self.kind == "extra_forbidden":
            return UnsupportedParameter(f"parameter {path!r} is not supported", path)
        value = "" if self.kind in ("missing", _WRONG) else f" = {_shown(self.value)}"
        return InvalidRequest(f"{path or 'the body'}{value}: {self.message}", path or None)


def shown_path(path: Path) -> str:
    """Return a path as OpenAI writes it: `messages[2].content`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_cut(part)}"
    return text.removeprefix(".")


def _translated(faults: Sequence[Any], given: Any) -> InvalidRequest:
    return _first(faults, given, ()).error()


def _first(faults: Sequence[Any], value: Any, path: Path) -> _Fault:
    """Return the first fault; where it is one of a union's branches, that of the best branch.

    Args:
        faults: pydantic's, with `loc` relative to `value`.
        value: at `path` of what was given.
        path: so far.
    """
    fault = faults[0]
    for depth, part in enumerate(fault["loc"]):
        if not _is_key(fault, depth, value):
            return _best(_branches(faults, fault["loc"][: depth + 1]), value, path)
        path = (*path, part)
        value = _item(value, part)
    if fault["type"] in (_UNSUPPORTED, _WRONG):
        path = (*path, fault["ctx"]["field"])
    return _Fault(path, _fits(fault["type"]), fault["type"], _message(fault), fault.get("input"))


def _branches(faults: Sequence[Any], loc: Path) -> list[list[Any]]:
    """Return the faults of each branch of the union at `loc`; its last part names a branch."""
    prefix, depth = loc[:-1], len(loc)
    own = [f for f in faults if f["loc"][: depth - 1] == prefix and len(f["loc"]) >= depth]
    return [
        [dict(fault, loc=fault["loc"][depth:]) for fault in branch]
        for _, branch in groupby(own, lambda fault: fault["loc"][depth - 1])
    ]


def _best(branches: list[list[Any]], value: Any, path: Path) -> _Fault:
    found = [_first(branch, value, path) for branch in branches]
    best = max(found, key=lambda fault: fault.progress)
    equal = [fault for fault in found if fault.path == best.path and not fault.fits]
    if best.fits or len(equal) == 1:
        return best
    expected = dict.fromkeys(fault.message.removeprefix(_EXPECTED) for fault in equal)
    message = _EXPECTED + " or ".join(expected)
    return _Fault(best.path, False, best.kind, message, best.value)


def _is_key(fault: Any, depth: int, value: Any) -> bool:
    """Return whether a part of a fault's `loc` is a key or index of what was given."""
    part = fault["loc"][depth]
    if isinstance(value, dict):
        is_last = depth == len(fault["loc"]) - 1
        return part in value or (is_last and fault["type"] == "missing")
    return isinstance(value, list) and isinstance(part, int)


def _item(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    return value[part] if isinstance(part, int) and part < len(value) else None


def _fits(kind: str) -> bool:
    return not kind.endswith(("_type", "_parsing", "_from_float"))


def _message(fault: Any) -> str:
    if fault["type"] in _WORDS:
        return _EXPECTED + _WORDS[fault["type"]]
    message: str = fault["msg"]
    return message.removeprefix("Value error, ").replace(" after validation", "")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return json.dumps(_cut(value), ensure_ascii=False)
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"

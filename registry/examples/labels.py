"""What the labels of a file are: names of classes, or numbers."""

import math
from typing import Any

_MAX_LABEL_CHARS = 256


def class_of(value: Any) -> str:
    """Return a label's name.

    Raises:
        ValueError: it is no short text and no integer.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        shown = "no `label`" if value is None else f"the label {str(value)[:40]!r}"
        raise ValueError(f"has {shown}; expected a text or an integer")
    name = str(value)
    if not 0 < len(name) <= _MAX_LABEL_CHARS:
        raise ValueError(
            f"has a label of {len(name)} characters; 1 to {_MAX_LABEL_CHARS} are taken"
        )
    return name


def number_of(value: Any) -> float:
    """Return a label that is a number.

    Raises:
        ValueError: it is none that is finite.
    """
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"has the label {str(value)[:40]!r}; a regression needs a number")
    return number

"""What llguidance says of a constraint that it does not compile, in the words of a request."""

import re
from collections.abc import Callable

from server.errors import InvalidRequest, UnsupportedParameter

#: A message may show the whole constraint.
_MAX_SHOWN = 400
_FORMATS = "date, time, date-time, duration, email, hostname, ipv4, ipv6, uuid, uri"

#: What it says -> what of it is not supported.
_UNSUPPORTED: tuple[tuple[str, Callable[["re.Match[str]"], str]], ...] = (
    (r"Unimplemented keys: \[(.*)\]", lambda found: f"not supported: {found[1]}"),
    (
        r"oneOf constraints are not supported",
        lambda _: (
            "'oneOf' is supported only where no two of its schemas can accept the same value, as "
            "by a constant in each: use anyOf"
        ),
    ),
    (
        r"Unknown format: (.*)",
        lambda found: f"format {found[1]!r} is not supported; supported are {_FORMATS}",
    ),
    (
        r"look-?arounds?\b|backreferences",
        lambda found: f"{found[0]} in regular expressions are not supported",
    ),
)
_TOO_LARGE = re.compile(r"too (big|large|complex|many|deeply)|fuel exhausted|max is|limit exceeded")


def refusal(said: str, param: str) -> InvalidRequest:
    """Return the error of a request whose constraint does not compile.

    Args:
        said: llguidance's message.
        param: the request's field that the constraint comes from.
    """
    for pattern, words in _UNSUPPORTED:
        found = re.search(pattern, said)
        if found:
            return UnsupportedParameter(f"{param}: {words(found)}", param)
    if said.startswith("NoExtension"):
        return InvalidRequest(f"{param}: there is no answer that it allows", param)
    shown = said.removesuffix("\n<non-verbose/>").strip()[:_MAX_SHOWN]
    if _TOO_LARGE.search(said):
        return InvalidRequest(f"{param} is too large: {shown}", param)
    return InvalidRequest(f"{param}: {shown}", param)

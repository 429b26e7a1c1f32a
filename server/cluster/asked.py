"""What the way of a request depends on: its base, its adapter, whether it may be sent twice. Pure.

The server says what is wrong with a request, so anything may stand in it here.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

#: (name, value) as they came; names in lower case.
Headers = Iterable[tuple[bytes, bytes]]

#: Names the base, where several are served.
BASE_HEADER = b"x-overtone-base"
#: Names the adapter, for clients that would rather not have bodies read.
ADAPTER_HEADER = b"x-overtone-adapter"

_NO_CHANGE = re.compile(
    r"/(v[12]/)?(completions|chat/completions|responses|compare|classify|embeddings|rerank|score"
    r"|evaluations|tokenize|detokenize)"
)
_OF_ADAPTER = re.compile(r"/v1/adapters/([^/]+)(?:/([^/]+))?")
#: What stands behind an adapter's name in a path, and so is no second part of a name.
_ACTIONS = {"versions", "aliases", "rollback", "warm", "pin"}


@dataclass(frozen=True)
class Asked:
    """A request, as far as its way depends on it.

    Args:
        base: the base that its header names.
        model: the adapter or base that it names, without version or alias.
        is_repeatable: it changes nothing, so it may be sent again if its replica is lost.
    """

    base: str | None
    model: str | None
    is_repeatable: bool


def asked(method: str, path: str, headers: Headers, body: bytes) -> Asked:
    """Return what a request asks for.

    Args:
        method: of HTTP.
        path: as it came, without the query.
        headers: of the request.
        body: its beginning, or all of it.
    """
    given = dict(headers)
    named = _text(given.get(ADAPTER_HEADER)) or _model(body) or _adapter_in(path)
    changes_nothing = method in ("GET", "HEAD", "OPTIONS") or _NO_CHANGE.fullmatch(path) is not None
    model = named.partition("@")[0] if named else None  # versions of one adapter share a replica
    return Asked(_text(given.get(BASE_HEADER)), model or None, changes_nothing)


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value else None


def _model(body: bytes) -> str | None:
    """Return `model` of a JSON object."""
    if body.lstrip()[:1] != b"{":
        return None
    try:
        model = json.loads(body).get("model")
    except (ValueError, RecursionError):
        return None
    return model if isinstance(model, str) else None


def _adapter_in(path: str) -> str | None:
    found = _OF_ADAPTER.match(path)
    if found is None:
        return None
    name, second = found[1], found[2]
    return unquote(name if second is None or second in _ACTIONS else f"{name}/{second}")

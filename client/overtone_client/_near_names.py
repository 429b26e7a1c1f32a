"""Names that are there, for one that is not."""

import difflib
import re

from ._sync.client import Client
from .errors import OvertoneError

_MOST = 5000  # names that are looked through
_QUOTED = re.compile(r"'([^']+)'")


def near_names(client: Client, message: str) -> str:
    """What to say behind the message about a name that the server does not have; often nothing.

    Args:
        client: asked for the names that are there.
        message: the server's, with the name in quotes.
    """
    quoted = _QUOTED.search(message)
    if quoted is None:
        return ""
    name, _, which = quoted[1].partition("@")
    try:
        known = [model.id for model in client.models(limit=_MOST)]
    except OvertoneError:  # the first error is the one to report
        return ""
    if name in known:
        return f"; `overtone show {name}` lists its versions and aliases" if which else ""
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""

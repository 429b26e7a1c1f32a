"""Spaces of adapters' names: every tenant has one, and the operators have one with an empty name.

Stored is `SPACE:NAME`, and a name of the operators' space alone, as it was before there were
spaces. The same words are how others name an adapter that is shared with them. A name has no ':';
a space may have one, so it ends at the last.
"""

import re

from registry.common.names import check_name
from registry.errors import InvalidName

#: The space of a server without keys, and of the keys of its setting.
OPERATORS = ""
#: A key's tenant, or what a gateway names behind it, or both.
_SPACE = re.compile(r"(?=.)(?:[A-Za-z0-9][A-Za-z0-9._@-]{0,63})?(?:/[\x20-\xff]{1,128})?")
_DIGEST_END = re.compile(r"@sha256:[0-9a-f]{64}\Z")


def in_space(space: str, name: str) -> str:
    """Return how a name of a space is stored."""
    return f"{space}:{name}" if space else name


def space_of(stored: str) -> str:
    """Return the space of a stored name."""
    return stored.rpartition(":")[0]


def plain(stored: str) -> str:
    """Return a stored name without its space."""
    return stored.rpartition(":")[2]


def shown_in(space: str, stored: str) -> str:
    """Return a stored name as it is said in a space: its own names alone, others with theirs."""
    return plain(stored) if space_of(stored) == space else stored


def is_space(text: str) -> bool:
    """Return whether a tenant may have names in a space that is called so."""
    return _SPACE.fullmatch(text) is not None


def check_stored(name: str) -> str:
    """Return a stored name unchanged.

    Raises:
        InvalidName: it breaks the rule of names behind its space, or that of spaces.
    """
    space, colon, rest = name.rpartition(":")
    check_name(rest)
    if colon and not is_space(space):
        raise InvalidName(f"adapter name {ascii(name[:120])} is not NAME or OWNER:NAME")
    return name


def owner_in(text: str) -> tuple[str | None, str]:
    """Return the space that a reference or name begins with, None for none, and the rest of it."""
    digest = _DIGEST_END.search(text)
    end = digest.start() if digest else len(text)
    owner, colon, rest = text[:end].rpartition(":")
    return (owner if colon else None), rest + text[end:]

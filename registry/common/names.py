"""The rules for names of adapters, aliases, digests and methods, and for references to versions."""

import re
from dataclasses import dataclass
from typing import Self

from registry.errors import AdapterNotFound, InvalidName

MAX_NAME_CHARS = 96
#: What stands behind an adapter's name in a path of the REST API: no second part of a name, so that
#: `/v1/adapters/ORG/versions` has one meaning.
RESERVED = ("versions", "aliases", "rollback", "warm", "pin")
_PART = "[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_PART}(?:/(?!(?:{'|'.join(RESERVED)})\Z){_PART})?")
_PREFIX = re.compile(rf"{_PART}(?:/(?:{_PART})?)?")
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
METHOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LATEST = "latest"  # an alias that follows publish, rollback and delete


def check_name(name: str) -> str:
    """Return `name` unchanged.

    Raises:
        InvalidName: it breaks the rule.
    """
    if is_name(name):
        return name
    if len(name) <= MAX_NAME_CHARS and name.rpartition("/")[2] in RESERVED:
        words = ", ".join(RESERVED)
        raise InvalidName(
            f"adapter name {_shown(name)} ends as a path of the API does: behind its '/' it is "
            f"none of {words}"
        )
    raise InvalidName(
        f"adapter name {_shown(name)} is not NAME or ORG/NAME, each of letters, digits, '.', '_' "
        f"or '-' and beginning with a letter or digit, 1 to {MAX_NAME_CHARS} characters in all"
    )


def is_name(text: str) -> bool:
    """Return whether an adapter may have this name: `NAME` or `ORG/NAME`."""
    return len(text) <= MAX_NAME_CHARS and _NAME.fullmatch(text) is not None


def check_prefix(prefix: str) -> str:
    """Return `prefix` unchanged: how a name may begin, such as `ORG/`.

    Raises:
        InvalidName: no name begins so.
    """
    if len(prefix) > MAX_NAME_CHARS or not _PREFIX.fullmatch(prefix):
        raise InvalidName(f"no adapter's name begins with {_shown(prefix)}")
    return prefix


def check_alias(alias: str) -> str:
    """Return `alias` unchanged.

    Raises:
        InvalidName: it breaks the rule, or is `latest`, which is not set by hand.
    """
    if alias == LATEST:
        raise InvalidName("alias 'latest' follows the versions by itself; publish, or roll back")
    if not ALIAS.fullmatch(alias):
        raise InvalidName(
            f"alias {_shown(alias)} is not 1 to 32 lower-case letters, digits, '_' or '-', "
            "beginning with a letter"
        )
    return alias


def check_digest(digest: str) -> str:
    """Return `digest` unchanged.

    Raises:
        InvalidName: it is not `sha256:` and 64 lower-case hex digits.
    """
    if not DIGEST.fullmatch(digest):
        raise InvalidName(f"digest {_shown(digest)} is not 'sha256:' and 64 hex digits")
    return digest


def check_method(method: str) -> str:
    """Return `method` unchanged.

    Raises:
        InvalidName: it cannot be a method's name.
    """
    if not METHOD.fullmatch(method):
        raise InvalidName(
            f"method {_shown(method)} is not 1 to 64 letters, digits, '.', '_' or '-'"
        )
    return method


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 120 else ascii(text[:120]) + "..."


@dataclass(frozen=True)
class Reference:
    """A parsed way of naming one version.

    Args:
        name: the adapter's name; the registry takes it as it is stored, with its space.
        kind: `version`, `alias` or `digest`.
        value: the version's digits, the alias or the digest.
    """

    name: str
    kind: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME`, `NAME@3`, `NAME@prod` or `NAME@sha256:<64 hex digits>`; also of `ORG/NAME`.

        Raises:
            AdapterNotFound: nothing can be published under this text, so nothing is there.
        """
        name, at, value = text.partition("@")
        if is_name(name):
            if not at:
                return cls(name, "alias", LATEST)
            for kind, rule in (("version", VERSION), ("alias", ALIAS), ("digest", DIGEST)):
                if rule.fullmatch(value):
                    return cls(name, kind, value)
        raise AdapterNotFound(
            f"no adapter {_shown(text)}: a reference is NAME, NAME@3, NAME@alias or NAME@sha256:..."
        )

    def __str__(self) -> str:
        is_bare = self.kind == "alias" and self.value == LATEST
        return self.name if is_bare else f"{self.name}@{self.value}"

"""Which version of an adapter a person means: NAME, NAME@3, NAME@prod, NAME@sha256:…."""

from ._sync.client import Client
from .errors import InvalidArgument
from .types import Adapter


def split(reference: str) -> tuple[str, str]:
    """The name, and what stands behind its @; empty if nothing does."""
    name, _, which = reference.partition("@")
    return name, which


def found(client: Client, reference: str) -> tuple[Adapter, list[Adapter]]:
    """The record of the version that is meant, and those of all versions.

    Raises:
        InvalidArgument: there is none of this number, alias or digest.
    """
    name, which = split(reference)
    latest, versions = client.show(name), client.versions(name)
    if not which:
        return latest, versions
    number = latest.aliases.get(which)
    for adapter in versions:
        if which in (str(adapter.version), adapter.digest) or adapter.version == number:
            return adapter, versions
    raise InvalidArgument(f"{name} has no version {which!r}; `overtone show {name}` lists them")


def numbered(reference: str, version: int | None) -> tuple[str, int | None]:
    """The name, and the version's number: from an option, or from behind the @.

    Raises:
        InvalidArgument: what is behind the @ is no number, or another one than the option's.
    """
    name, which = split(reference)
    if not which:
        return reference, version
    if not which.isdecimal() or version not in (None, int(which)):
        raise InvalidArgument(f"{reference!r} does not name one version by its number: NAME@3")
    return name, int(which)

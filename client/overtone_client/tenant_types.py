"""What the server's answers about tenants become; as types.py, with the JSON under `raw`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TenantLimits:
    """What a tenant may ask of all servers of a registry together.

    Args:
        tenant: that they are for.
        own: those that were set for it, by name: a number, or `unlimited`.
        limits: those that hold, its own or the server's default; None is none.
    """

    tenant: str
    own: Mapping[str, int | str]
    limits: Mapping[str, int | None]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Use:
    """How much of one limit is used: None where nothing is counted, or nothing is limited."""

    used: int | None
    allowed: int | None


@dataclass(frozen=True)
class TenantUsage:
    """What a tenant uses of what it may, limit by limit."""

    tenant: str
    usage: Mapping[str, Use]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

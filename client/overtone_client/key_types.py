"""What the server's answers about API keys become; as types.py, with the JSON under `raw`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class ApiKey:
    """An API key as it stands.

    Args:
        id: a part of its secret.
        tenant: owns what is made with it.
        scopes: what it may do: `infer`, `upload`, `train`, `metrics`, `admin` (which has all).
        label: for people.
        ends_in: the last characters of its secret.
        created_at, expires_at, revoked_at, rotated_at: in UTC; None for never.
        old_secret_until: until when the secret before the last rotation is valid, too.
        secret: what callers send, from `create` and `rotate` only: it is never shown again.
    """

    id: str
    tenant: str
    scopes: tuple[str, ...]
    label: str
    ends_in: str
    created_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    rotated_at: datetime | None
    old_secret_until: datetime | None
    secret: str | None = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)

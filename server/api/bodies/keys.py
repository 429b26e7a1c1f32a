"""API keys."""

from typing import Literal

from typing_extensions import TypedDict

from registry import Scope
from server.api.bodies.files import ListPage


class ApiKey(TypedDict):
    """An API key, without its secret.

    Args:
        id: a part of the secret.
        tenant: owns what is made with the key.
        scopes: what it may do; `admin` has all others.
        label: for people.
        ends_in: the last characters of the secret.
        created_at: seconds since 1970.
        expires_at: when it is valid no longer; null for never.
        revoked_at: when it was revoked, if it was.
        rotated_at: when it got the secret that it has, if not when it was made.
        old_secret_until: until when the secret before that one is valid, too.
    """

    object: Literal["api_key"]
    id: str
    tenant: str
    scopes: list[Scope]
    label: str
    ends_in: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    rotated_at: int | None
    old_secret_until: int | None


class ApiKeyWithSecret(ApiKey):
    """An API key with its new secret, which is shown this once.

    Args:
        secret: what callers send as `Authorization: Bearer SECRET`; only its hash is kept.
    """

    secret: str


class ApiKeyPage(ListPage):
    """API keys, the newest first, with those that ended within the last 90 days.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
        first_id: id of the first entry.
        last_id: id of the last entry.
    """

    data: list[ApiKey]

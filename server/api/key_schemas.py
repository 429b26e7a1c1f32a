"""What is asked of API keys, and how they are answered."""

from typing import Annotated

from pydantic import Field

from registry import KeyRecord, NewKey, Scope
from registry.access.record import MAX_LABEL_CHARS, MAX_LIFE_S, SCOPES, TENANT
from registry.access.secret import Secret
from server.api.bodies.keys import ApiKey, ApiKeyWithSecret
from server.api.request_body import RequestBody


class KeyRequest(RequestBody):
    """An API key to be made.

    Args:
        tenant: owns what is made with the key; need not be known before.
        scopes: what it may do; `admin` has all others, and keys of every tenant are made with it.
        label: for people.
        expires_in_s: seconds from now on; missing: for ever.
    """

    example = {"tenant": "alice", "scopes": ["infer", "upload"], "expires_in_s": 2592000}

    tenant: Annotated[str, Field(pattern=f"^{TENANT.pattern}$")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))]
    label: Annotated[str, Field(max_length=MAX_LABEL_CHARS)] = ""
    expires_in_s: Annotated[float, Field(gt=0, le=MAX_LIFE_S, strict=True)] | None = None

    @property
    def new_key(self) -> NewKey:
        """Return the key as the registry takes it.

        Raises:
            InvalidArgument: its label cannot be shown.
        """
        return NewKey(self.tenant, tuple(self.scopes), self.label, self.expires_in_s)


def key_object(record: KeyRecord) -> ApiKey:
    """Return a key as the API shows it."""
    return {
        "id": record.id,
        "object": "api_key",
        "tenant": record.tenant,
        "scopes": list(record.scopes),
        "label": record.label,
        "ends_in": record.shown,
        "created_at": int(record.created_at),
        "expires_at": _whole(record.expires_at),
        "revoked_at": _whole(record.revoked_at),
        "rotated_at": _whole(record.rotated_at),
        "old_secret_until": _whole(record.old_until),
    }


def key_with_secret(record: KeyRecord, secret: Secret) -> ApiKeyWithSecret:
    """Return a key with its new secret, for the one answer that shows it."""
    return {**key_object(record), "secret": secret.reveal()}


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)

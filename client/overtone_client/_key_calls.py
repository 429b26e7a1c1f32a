"""Builders of the requests about API keys, and parsers of their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx2

from ._requests import Call
from ._requests import _present as present
from ._requests import _segment as segment
from ._responses import _time as moment
from ._responses import understood
from .key_types import ApiKey

KEYS = "/v1/keys"


def path(id_: str, *tail: str) -> str:
    """`/v1/keys/ID/…`."""
    return "/".join([KEYS, *(segment(part) for part in (id_, *tail))])


def create(
    tenant: str, scopes: Sequence[str], label: str | None, expires_in_s: float | None
) -> Call:
    """A new key."""
    more = present({"label": label, "expires_in_s": expires_in_s})
    return Call("POST", KEYS, json={"tenant": tenant, "scopes": list(scopes), **more})


def rotate(id_: str, grace_s: float) -> Call:
    """A new secret of a key."""
    return Call("POST", path(id_, "rotate"), params={"grace_s": grace_s})


def parse(response: httpx2.Response) -> ApiKey:
    """One key."""
    return understood(str(response.url), to_key, response.json)


def parse_with_secret(response: httpx2.Response) -> ApiKey:
    """One key with its new secret."""
    return understood(str(response.url), _to_key_with_secret, response.json)


def to_key(body: Mapping[str, Any]) -> ApiKey:
    """A key from its JSON."""
    times = ("created_at", "expires_at", "revoked_at", "rotated_at", "old_secret_until")
    return ApiKey(
        id=str(body["id"]),
        tenant=str(body["tenant"]),
        scopes=tuple(map(str, body["scopes"])),
        label=str(body.get("label") or ""),
        ends_in=str(body.get("ends_in") or ""),
        **{name: moment(body.get(name)) for name in times},
        secret=None,
        raw=body,
    )


def _to_key_with_secret(body: Mapping[str, Any]) -> ApiKey:
    return replace(to_key(body), secret=str(body["secret"]))

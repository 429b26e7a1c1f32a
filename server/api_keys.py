"""The API keys of the setting, and their tenants: `NAME=SECRET`, or a secret alone.

A tenant has a name and any number of keys: two keys of one name are valid at the same time. The
tenant of a secret without a name is derived from the secret's hash, as it was before keys had
names, and its files and jobs can be reached with no other key.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from registry.access.record import TENANT


@dataclass(frozen=True)
class ApiKey:
    """One key.

    Args:
        tenant: that it stands for.
        is_named: it has a name; otherwise the tenant is lost with the key.
        digests: sha256 of each spelling in which callers may send it.
    """

    tenant: str
    is_named: bool
    digests: tuple[bytes, ...]

    def is_given(self, digest: bytes) -> bool:
        """Return whether this is the digest of what a caller sent; in constant time."""
        return sum(hmac.compare_digest(digest, own) for own in self.digests) > 0


def read_keys(given: Sequence[str]) -> list[ApiKey]:
    """Return the keys of a setting.

    Raises:
        ValueError: one secret stands for two tenants; the message names them, not the secret.
    """
    keys = [_read(text) for text in given]
    tenants: dict[bytes, str] = {}
    for key in keys:
        for digest in key.digests:
            other = tenants.setdefault(digest, key.tenant)
            if other != key.tenant:
                raise ValueError(f"one secret is given for two tenants, {other} and {key.tenant}")
    return keys


def key_of(keys: Sequence[ApiKey], sent: bytes) -> ApiKey | None:
    """Return the key that was sent, or None; every key is compared, in constant time."""
    digest = hashlib.sha256(sent).digest()
    found = [key for key in keys if key.is_given(digest)]
    return found[0] if found else None


def _read(text: str) -> ApiKey:
    name, _, secret = text.partition("=")
    if TENANT.fullmatch(name) and secret.strip("="):  # base64 ends in '=', and is no name
        # The whole is taken, too: a key of this shape may be from before keys had names.
        return ApiKey(name, True, (_digest(secret), _digest(text)))
    return ApiKey(_digest(text).hex()[:16], False, (_digest(text),))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

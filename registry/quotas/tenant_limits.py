"""The limits of tenants in the registry, where they are not the servers' default."""

import json
from typing import Any

import redis

from registry.access.record import TENANT
from registry.common.limits import Given, check
from registry.errors import CorruptRecord, InvalidArgument
from registry.redis import keys
from registry.redis.scripts import Observer, Scripts


class TenantLimits:
    """The limits behind one Redis client; safe to use from many threads.

    Every method raises `RegistryUnavailable` when the server does not answer.

    Args:
        client: answers bytes and has socket timeouts.
        observer: called after every exchange: operation, seconds, and whether the server answered.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._client = client
        self._scripts = Scripts(client, observer)

    def put(self, tenant: str, given: Given) -> None:
        """Set a tenant's own limits in place of those before, and announce it to all servers.

        Args:
            tenant: need not be known before.
            given: by name; those that are missing are the servers' default.

        Raises:
            InvalidArgument: a name or a number is wrong.
        """
        if not TENANT.fullmatch(tenant):
            raise InvalidArgument(f"{ascii(tenant[:80])} is no tenant's name")
        body = json.dumps(check(given), sort_keys=True, separators=(",", ":")) if given else ""
        touched = [keys.LIMITS, keys.CHANGES, keys.SEQUENCE]
        self._scripts.run("limits_put", touched, [tenant, keys.MAX_CHANGES, body])

    def of(self, tenant: str) -> dict[str, int | None]:
        """Return a tenant's own limits; empty if it has none."""
        with self._scripts.asking("limits"):
            stored: Any = self._client.hget(keys.LIMITS, tenant)
        return {} if stored is None else _read(tenant, stored)

    def hand_over(self, old: str, new: str) -> None:
        """Give a tenant's own limits to another one that has none of its own."""
        mine = self.of(old)
        if mine and not self.of(new):
            self.put(new, mine)
        if mine:
            self.put(old, {})

    def all(self) -> dict[str, dict[str, int | None]]:
        """Return all tenants that have limits of their own, with them."""
        with self._scripts.asking("limits"):
            stored: Any = self._client.hgetall(keys.LIMITS)
        return {name.decode(): _read(name.decode(), body) for name, body in stored.items()}


def _read(tenant: str, stored: bytes) -> dict[str, int | None]:
    try:
        return check(json.loads(stored))
    except (ValueError, AttributeError, InvalidArgument) as error:
        raise CorruptRecord(f"the limits of tenant {tenant!r} cannot be read: {error}") from error

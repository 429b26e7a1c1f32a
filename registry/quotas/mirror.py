"""A server's own mirror of tenants' limits: a request asks it, and never waits for Redis.

It hears of every change on the thread of the directory of names, within milliseconds. While the
registry is away, the limits that were known last hold.
"""

import threading

from registry.adapters.changes import Change
from registry.adapters.directory import Directory
from registry.common.limits import Limits, account_of
from registry.quotas.tenant_limits import TenantLimits


class LimitsMirror:
    """All limits that tenants have of their own, and the default; safe to use from many threads.

    Args:
        stored: the registry's.
        directory: follows the registry's changes; not started yet.
        default: holds for whatever a tenant has no limit of its own for.
    """

    def __init__(self, stored: TenantLimits, directory: Directory, default: Limits) -> None:
        self._stored = stored
        self._default = default
        self._lock = threading.Lock()  # an answer is kept before the next question is asked
        self._known: dict[str, Limits] = {}
        directory.listen(self)

    def of(self, tenant: str) -> Limits:
        """Return the limits that hold for a tenant, from memory."""
        if not self._known:
            return self._default
        return self._known.get(account_of(tenant), self._default)

    def note(self, tenant: str) -> None:
        """Read a tenant's limits again: after changing them, to read your own write.

        Raises:
            RegistryUnavailable: the registry does not answer; what is known stays so.
        """
        with self._lock:
            given = self._stored.of(tenant)
            if given:
                self._known[tenant] = self._default.changed(given)
            else:
                self._known.pop(tenant, None)

    def heard(self, change: Change) -> None:
        """Read again what was announced, if it is a tenant's limits."""
        if change.kind == "limits":
            self.note(change.name)

    def catch_up(self) -> None:
        """Read all limits again: before the first request, and on the directory's thread.

        Raises:
            RegistryUnavailable: the registry does not answer; what is known stays so.
        """
        with self._lock:
            found = self._stored.all()
            self._known = {name: self._default.changed(given) for name, given in found.items()}

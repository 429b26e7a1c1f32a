"""Limits and usage of tenants over REST, for ordinary programs; its twin: async_tenants.py."""

from collections.abc import Callable, Mapping

import httpx2

from . import _tenant_calls as calls
from ._requests import Call
from .tenant_types import TenantLimits, TenantUsage


class Tenants:
    """What tenants may ask and what they use; all but `usage()` needs the scope `admin`.

    Every method raises `OvertoneError`s only.

    Args:
        send: sends a call and returns the whole answer.
    """

    def __init__(self, send: Callable[[Call], httpx2.Response]) -> None:
        self._send = send

    def limits(self, tenant: str) -> TenantLimits:
        """A tenant's limits: those that were set for it, and those that hold."""
        return calls.parse_limits(self._send(calls.limits(tenant)))

    def set_limits(self, tenant: str, limits: Mapping[str, int | str | None]) -> TenantLimits:
        """Set a tenant's own limits in place of those before, for all servers within a second.

        Args:
            tenant: need not be known.
            limits: by name, such as `tokens_per_minute`: a number, `unlimited`, or None for the
                server's default, as is what is missing.
        """
        return calls.parse_limits(self._send(calls.set_limits(tenant, limits)))

    def usage(self, tenant: str | None = None) -> TenantUsage:
        """What a tenant uses of what it may; None: the caller's own."""
        return calls.parse_usage(self._send(calls.usage(tenant)))

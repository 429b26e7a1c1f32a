"""Limits and usage of tenants over REST, for asyncio programs; tenants.py describes the methods."""

from collections.abc import Awaitable, Callable, Mapping

import httpx2

from . import _tenant_calls as calls
from ._requests import Call
from .tenant_types import TenantLimits, TenantUsage


class AsyncTenants:
    """The same as `Tenants`, method for method.

    Args:
        send: sends a call and returns the whole answer.
    """

    def __init__(self, send: Callable[[Call], Awaitable[httpx2.Response]]) -> None:
        self._send = send

    async def limits(self, tenant: str) -> TenantLimits:
        return calls.parse_limits(await self._send(calls.limits(tenant)))

    async def set_limits(self, tenant: str, limits: Mapping[str, int | str | None]) -> TenantLimits:
        return calls.parse_limits(await self._send(calls.set_limits(tenant, limits)))

    async def usage(self, tenant: str | None = None) -> TenantUsage:
        return calls.parse_usage(await self._send(calls.usage(tenant)))

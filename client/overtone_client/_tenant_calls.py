"""Builders of the requests about tenants, and parsers of their answers."""

from collections.abc import Mapping
from typing import Any

import httpx2

from ._requests import Call
from ._requests import _segment as segment
from ._responses import understood
from .tenant_types import TenantLimits, TenantUsage, Use


def limits(tenant: str) -> Call:
    """A tenant's limits."""
    return Call("GET", _path(tenant, "limits"))


def set_limits(tenant: str, given: Mapping[str, int | str | None]) -> Call:
    """A tenant's own limits, in place of those before."""
    return Call("PUT", _path(tenant, "limits"), json=dict(given))


def usage(tenant: str | None) -> Call:
    """What a tenant uses, or the caller's own."""
    return Call("GET", "/v1/usage" if tenant is None else _path(tenant, "usage"))


def parse_limits(response: httpx2.Response) -> TenantLimits:
    """A tenant's limits."""
    return understood(str(response.url), _to_limits, response.json)


def parse_usage(response: httpx2.Response) -> TenantUsage:
    """A tenant's usage."""
    return understood(str(response.url), _to_usage, response.json)


def _to_limits(body: Mapping[str, Any]) -> TenantLimits:
    return TenantLimits(
        tenant=str(body["tenant"]), own=dict(body["own"]), limits=dict(body["limits"]), raw=body
    )


def _to_usage(body: Mapping[str, Any]) -> TenantUsage:
    found = {name: Use(use["used"], use["allowed"]) for name, use in body["usage"].items()}
    return TenantUsage(tenant=str(body["tenant"]), usage=found, raw=body)


def _path(tenant: str, what: str) -> str:
    return f"/v1/tenants/{segment(tenant)}/{what}"

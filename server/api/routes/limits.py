"""Limits of tenants over REST, for callers with the scope admin; and each tenant's own usage."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request

from registry.access.record import TENANT
from registry.common.limits import account_of
from server.api.bodies.limits import TenantLimits, TenantUsage
from server.api.callers import Caller
from server.api.describe import ADMIN, ASKS_REGISTRY, READS, WRITES, answer, describe
from server.api.limit_schemas import LimitsRequest, limits_object, usage_object
from server.api.request import check_room, json_body, service_of
from server.errors import InvalidRequest
from server.service import Service

router = APIRouter(tags=["tenants"])

_TENANT = "/v1/tenants/{tenant}"
Tenant = Annotated[str, Path(description="The tenant's name; it need not be known.")]


@router.get(
    _TENANT + "/limits",
    **describe("getTenantLimits", answer(TenantLimits), errors=ASKS_REGISTRY, scopes=ADMIN),
)
async def show(request: Request, tenant: Tenant) -> TenantLimits:
    """Show a tenant's limits: those that were set for it, and those that hold."""
    return await _limits(service_of(request), _checked(tenant))


@router.put(
    _TENANT + "/limits",
    **describe(
        "putTenantLimits",
        answer(TenantLimits),
        body=LimitsRequest,
        errors=WRITES,
        scopes=ADMIN,
    ),
)
async def put(request: Request, tenant: Tenant) -> TenantLimits:
    """Set a tenant's limits, for all servers within a second."""
    service, name = service_of(request), _checked(tenant)
    body = await json_body(request, LimitsRequest)
    await check_room(service)
    await asyncio.to_thread(service.registry.tenant_limits.put, name, body.given)
    request.state.made = {"limits": body.given}
    return await _limits(service, name)


@router.get(
    _TENANT + "/usage",
    **describe("getTenantUsage", answer(TenantUsage), errors=ASKS_REGISTRY, scopes=ADMIN),
)
async def usage(request: Request, tenant: Tenant) -> TenantUsage:
    """Show what a tenant uses of what it may, over all servers of the registry."""
    return await _usage(service_of(request), _checked(tenant), tenant)


@router.get(
    "/v1/usage",
    **describe("getUsage", answer(TenantUsage), errors=ASKS_REGISTRY, scopes=READS),
)
async def own_usage(request: Request) -> TenantUsage:
    """Show what the caller's tenant uses of what it may."""
    caller: Caller = request.state.caller
    return await _usage(service_of(request), caller.tenant, caller.space)


async def _limits(service: Service, tenant: str) -> TenantLimits:
    await asyncio.to_thread(service.tenant_limits.note, tenant)
    own = await asyncio.to_thread(service.registry.tenant_limits.of, tenant)
    return limits_object(tenant, own, service.tenant_limits.of(tenant))


async def _usage(service: Service, tenant: str, space: str) -> TenantUsage:
    limits = service.tenant_limits.of(tenant)
    registry = service.registry
    rates = await asyncio.to_thread(registry.rates.state, account_of(tenant), limits)
    held = await asyncio.to_thread(registry.stocks.of, tenant, space)
    return usage_object(tenant, limits, rates, held)


def _checked(tenant: str) -> str:
    if not TENANT.fullmatch(tenant):
        raise InvalidRequest(
            f"{tenant[:80]!r} is no tenant: 1 to 64 letters, digits, '.', '_', '@' or '-', "
            "beginning with a letter or digit",
            "tenant",
        )
    return tenant

"""Requests of inference, counted by their tenant's limits before anything of them is read."""

from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from registry import QuotaExceeded
from server.api.middleware.messages import send_error
from server.errors import RateLimited
from server.service import Service

#: Of the routes that are counted.
_INFERENCE = "inference"


class Rated:
    """Refuses what is over the tenant's requests a minute or running requests: 429, or 403.

    A request runs until its answer is sent, or its caller has hung up.

    Args:
        app: the application inside.
        paths: of the routes that are counted.
    """

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self._app, self._paths = app, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        service: Service | None = None
        if scope["type"] == "http" and scope["path"] in self._paths:
            service = scope["app"].state.service
        if service is None:
            await self._app(scope, receive, send)
            return
        try:
            end = await service.meter.begin(scope["state"]["tenant"])
        except (RateLimited, QuotaExceeded) as error:
            await send_error(send, error)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            end()


def inference_paths(routers: Iterable[APIRouter]) -> frozenset[str]:
    """Return the paths of the routes that answer with a model."""
    return frozenset(
        route.path
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and _INFERENCE in route.tags
    )

"""Requests of inference, counted by their tenant's limits before anything of them is read."""

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.middleware.messages import send_error
from server.errors import RateLimited
from server.service import Service

#: Of the routes that are counted.
INFERENCE = "inference"


class Rated:
    """Refuses what is over the tenant's requests a minute or running requests, with 429.

    A request runs until its answer is sent, or its caller has hung up.

    Args:
        app: the application inside.
        paths: of the routes that are counted.
    """

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self._app, self._paths = app, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 429."""
        service: Service | None = None
        if scope["type"] == "http" and scope["path"] in self._paths:
            service = scope["app"].state.service
        if service is None:
            await self._app(scope, receive, send)
            return
        try:
            end = await service.meter.begin(scope["state"]["tenant"])
        except RateLimited as error:
            await send_error(send, error)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            end()


def inference_paths(app: FastAPI) -> frozenset[str]:
    """Return the paths of an application's routes that answer with a model."""
    return frozenset(
        route.path  # type: ignore[attr-defined]
        for route in app.routes
        if INFERENCE in getattr(route, "tags", ())
    )

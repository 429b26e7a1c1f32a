"""uvicorn's settings for this application."""

from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from server.process.connection import Connection
from server.settings import Settings
from server.telemetry.observer import Observer

#: Longer than load balancers keep idle connections: if the server closed one first, it could cut
#: off a request that is on its way.
_KEEP_ALIVE_S = 75


def http_config(
    app: ASGIApp, settings: Settings, observer: Observer, **options: Any
) -> uvicorn.Config:
    """Return how uvicorn serves the application.

    Args:
        app: the application.
        settings: of the server.
        observer: hears of what never became a request.
        options: more of uvicorn's own.
    """

    def refused(status: int) -> None:
        observer.on_request("unknown", status, 0.0)

    connection: Any = partial(Connection, stall_s=settings.client_stall_s, on_refused=refused)
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        **options,
    )

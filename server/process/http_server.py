"""uvicorn's settings for this application."""

from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from server.process.connection import Connection
from server.settings import Settings

#: Longer than load balancers keep idle connections: if the server closed one first, it could cut
#: off a request that is on its way.
_KEEP_ALIVE_S = 75


def http_config(app: ASGIApp, settings: Settings, **options: Any) -> uvicorn.Config:
    """Return how uvicorn serves the application; `options` are more of its own."""
    connection: Any = partial(Connection, stall_s=settings.client_stall_s)
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        **options,
    )

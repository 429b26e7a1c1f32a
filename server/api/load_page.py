"""The page that schedulers in front of several servers ask for, many times a second."""

from typing import Any

from fastapi import Response


def load_page(state: Any) -> Response:
    """Return queue, cache use and adapters in use.

    Args:
        state: of the application.
    """
    if state.service is not None:
        state.metrics.load.take(state.service.serving.worker.load())
    body, content_type = state.metrics.render_load()
    return Response(body, media_type=content_type)
